"""An FTP server with one file, for aria2: passive, binary, with REST, on the loopback interface."""

import contextlib
import socket
import socketserver
import time
from typing import Any

from servers.background import Background

__all__ = ["FtpServer"]


class FtpServer(Background):
    """Serves ``content`` under any name to clients that know the password. A context manager."""

    def __init__(self, content: bytes, *, user: str = "anonymous", password: str = "") -> None:
        self.content = content
        self.offsets: list[int] = []
        """Where each transfer began."""
        self.commands: list[str] = []
        """What it was told, by all its clients."""
        self.rate = 0
        """Bytes per second; 0: as fast as it goes."""
        self._user, self._password = user, password
        ftp = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError), contextlib.ExitStack() as listeners:
                    ftp._serve(self, listeners)

        super().__init__(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))

    def _serve(self, handler: Any, listeners: contextlib.ExitStack) -> None:
        def say(line: str) -> None:
            handler.wfile.write(f"{line}\r\n".encode())

        user, offset, data = "", 0, None
        say("220 ready")
        while line := handler.rfile.readline().decode().strip():
            self.commands.append(line)
            command, _, argument = line.partition(" ")
            match command.upper():
                case "USER":
                    user = argument
                    say("331 and the password?")
                case "PASS":
                    known = user == self._user and (not self._password or argument == self._password)
                    say("230 welcome" if known else "530 no")
                case "TYPE":
                    say("200 binary")
                case "CWD":
                    say("250 there we are")
                case "PWD":
                    say('257 "/"')
                case "SIZE":
                    say(f"213 {len(self.content)}")
                case "MDTM":
                    say("213 20200101000000")
                case "EPSV" | "PASV":
                    data = listeners.enter_context(socket.create_server(("127.0.0.1", 0)))
                    port = data.getsockname()[1]
                    if command.upper() == "EPSV":
                        say(f"229 Entering Extended Passive Mode (|||{port}|)")
                    else:
                        say(f"227 Entering Passive Mode (127,0,0,1,{port >> 8},{port & 255})")
                case "REST":
                    offset = int(argument)
                    say("350 from there")
                case "RETR" if data is not None:
                    say("150 here it comes")
                    self._send(data, offset)
                    data, offset = None, 0
                    say("226 that is all")
                case "QUIT":
                    say("221 bye")
                    return
                case _:
                    say("502 not here")

    def _send(self, data: socket.socket, offset: int) -> None:
        self.offsets.append(offset)
        with data, contextlib.closing(data.accept()[0]) as connection:
            for at in range(offset, len(self.content), 16384):
                connection.sendall(self.content[at : at + 16384])
                if self.rate:
                    time.sleep(16384 / self.rate)
