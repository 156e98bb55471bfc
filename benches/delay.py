"""A slow path to a port of 127.0.0.1: every byte takes half the delay in each direction.

    python delay.py PORT SECONDS          prints its own port, and runs until stdin ends

At most ``WINDOW`` bytes of a connection are in flight in each direction, as on a long path with ordinary socket
buffers. So one connection carries at most WINDOW / SECONDS bytes per second, and several carry more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

WINDOW = 512 << 10
_PIECE = 64 << 10


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Forward what is read, each piece ``delay`` seconds later."""
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW // _PIECE)
    clock = asyncio.get_running_loop().time

    async def deliver() -> None:
        while True:
            due, piece = await on_the_way.get()
            await asyncio.sleep(due - clock())
            if not piece:
                return
            if writer.is_closing():
                continue  # the peer has closed the connection
            with contextlib.suppress(ConnectionError):
                writer.write(piece)
                await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while piece := await reader.read(_PIECE):
            await on_the_way.put((clock() + delay, piece))
        await on_the_way.put((clock() + delay, b""))
        await delivery
    except ConnectionError:
        pass
    finally:
        delivery.cancel()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await delivery
        writer.close()


async def _serve(port: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay)  # SYN and SYN-ACK
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            _carry(reader, there_writer, delay / 2),
            _carry(there_reader, writer, delay / 2),
            return_exceptions=True,
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=511)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Drop whatever is still in flight.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
