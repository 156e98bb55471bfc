"""What is compared: a table. A new scenario is a new entry."""

from __future__ import annotations

from dataclasses import dataclass

from peers import Peer

__all__ = ["DEFAULT", "SCENARIOS", "Scenario"]

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Scenario:
    """A thing to download, from one of the server's ports (see ``server.Server``)."""

    name: str
    about: str
    port: str
    files: int = 1
    size: int = 1 << 30  # of each file; --size changes it for the scenarios of one file
    largest: int = 1 << 62  # what --size is capped at, where more only takes longer
    connections: int = 16
    splitting_only: bool = False  # leave out the peers that use one connection per file

    def takes(self, peer: Peer) -> bool:
        able = peer.many if self.files > 1 else peer.one
        encrypted = self.port.startswith("https")
        return able is not None and (peer.https or not encrypted) and (peer.splits or not self.splitting_only)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("http-1g", "one file over plain HTTP/1.1", "http"),
    Scenario("https-1g", "one file over TLS, HTTP/1.1", "https"),
    Scenario("small-5000", "5,000 files of 16 KiB over plain HTTP/1.1", "http", files=5000, size=16 * KIB),
    Scenario(
        "per-connection-limit",
        "one file, the kernel paces every connection to 4 MiB/s",
        "paced",
        largest=256 * MIB,
        connections=128,
        splitting_only=True,
    ),
    Scenario(
        "per-request-limit",
        "one file, nginx limits every request to 4 MiB/s (limit_rate)",
        "limit_rate",
        largest=256 * MIB,
        connections=128,
        splitting_only=True,
    ),
    Scenario("https2-1g", "one file over TLS, HTTP/2 offered", "https2"),
    Scenario("small-5000-https", "5,000 files of 16 KiB over TLS, HTTP/1.1", "https", files=5000, size=16 * KIB),
    Scenario(
        "small-5000-https2",
        "5,000 files of 16 KiB over TLS, HTTP/2 offered",
        "https2",
        files=5000,
        size=16 * KIB,
    ),
)

DEFAULT = ("http-1g", "https-1g", "small-5000")
