"""A loopback server that does not treat all connections alike, which nginx cannot be configured to do.

    python unfair.py FILE RULES           prints the file's URL, and runs until stdin ends

RULES is a JSON object. ``rate``: bytes per second of every connection, enforced by the kernel (Linux). ``odd``: the
number of the connection that differs, counted from 1 in the order of first requests; ``odd_rate``: its own rate;
``odd_stalls``: it stalls forever after this many bytes.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import Any

from loopback import Handler, LoopbackServer

_SO_MAX_PACING_RATE = 47  # Linux; the socket module has no name for it before Python 3.14


class _Unfair(Handler):
    rules: dict[str, int]

    def setup(self) -> None:
        super().setup()
        self.number = self.loopback.connections
        self._left = self.rules.get("odd_stalls", 0) if self._is_odd else 0
        rate = self.rules.get("odd_rate", 0) if self._is_odd else 0
        if rate := rate or self.rules.get("rate", 0):
            self.connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate)

    @property
    def _is_odd(self) -> bool:
        return self.number == self.rules.get("odd", 0)

    def _send(self, start: int, end: int) -> None:
        if self._left:
            end, self._left = min(end, start + self._left), max(self._left - (end - start), 0)
            super()._send(start, end)
            if not self._left:
                threading.Event().wait()
            return
        super()._send(start, end)


def main() -> None:
    rules: dict[str, Any] = json.loads(sys.argv[2])
    with LoopbackServer(sys.argv[1], type("Handler", (_Unfair,), {"rules": rules})) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
