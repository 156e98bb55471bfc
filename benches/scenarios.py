"""What is compared: a table. A new scenario is a new entry."""

from __future__ import annotations

from dataclasses import dataclass

from peers import Peer

__all__ = ["DEFAULT", "SCENARIOS", "TRIALS", "Scenario", "Trial"]

KIB, MIB = 1 << 10, 1 << 20
_MIXED = (16 * KIB,) * 6 + (KIB, 4 * KIB) * 4 + (100 * KIB,) * 4 + (500 * KIB, 4 * MIB)


@dataclass(frozen=True)
class Scenario:
    """What to download, and from which of the server's ports (see ``server.Server``)."""

    name: str
    about: str
    port: str
    files: int = 1
    size: int = 1 << 30  # of each file; --size changes it for scenarios with one file
    largest: int = 1 << 62  # caps --size where more would only take longer
    connections: int = 16
    splitting_only: bool = False  # leave out the peers that use one connection per file
    mixed: tuple[int, ...] = ()  # sizes that alternate, instead of one for all

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
    Scenario(
        "allows-4",
        "one file, 4 MiB/s for each of at most four connections, 503 for more",
        "allows4",
        largest=64 * MIB,
        splitting_only=True,
    ),
    Scenario(
        "delay-100ms",
        "one file, 100 ms away; at most 512 KiB of each connection on the way",
        "delayed",
        largest=128 * MIB,
    ),
    Scenario(
        "small-mixed",
        "2,000 files of 1 KiB to 4 MiB over plain HTTP/1.1",
        "http",
        files=2000,
        size=sum(_MIXED) // len(_MIXED),
        mixed=_MIXED,
    ),
    Scenario("small-100000", "100,000 files of 16 KiB over plain HTTP/1.1", "http", files=100_000, size=16 * KIB),
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


@dataclass(frozen=True)
class Trial:
    """rangefetch compared with itself, with and without something; ``trials.py`` has a function for each name."""

    name: str
    about: str
    target: str


TRIALS: tuple[Trial, ...] = (
    Trial("one-slow-of-8", "8 connections, one at 1/50 of the others' speed: time with / without", "<= 1.25"),
    Trial("one-stalls", "8 connections, one stands still for ever after 10 MiB: time with / without", "<= 1.25"),
    Trial("fast-lan", "1 GiB as fast as it goes, up to 64 lanes allowed: time / with 8; lanes used", "<= 1.1"),
    Trial("gil", "a busy loop in another process / in a thread of this one: throughput", ">= 0.95"),
    Trial("limit-1m", "1 MB/s asked for, over 10 s, at 1, 4 and 16 lanes: measured / asked", "0.97 to 1.03"),
    Trial("two-files-two-loops", "two files on one loop / on two: time", ">= 1, above where cores allow"),
    Trial(
        "small-ways", "files per second by fetch_many, with names, a manager, a loop of fetch", ">= 5,000 by a manager"
    ),
    Trial("sha256-behind", "sha-256 of 1 GiB arriving at 300 MB/s: seconds from the last byte to the result", "<= 0.5"),
    Trial("start-up", "CPU time over bare Python", "import <= 10 ms, a small file <= 50 ms"),
    Trial("list-first-request", "seconds to the first connection, of 1 and 10 million lines, plain and CSV", "<= 1"),
    Trial("list-ledger", "100,000 files of 1 kB with a ledger / without: seconds, processor time", "<= 1.25"),
    Trial("list-again", "a second run over 100,000 finished files with a ledger", ">= 50,000 items a second"),
    Trial("list-10m", "resident memory over a list of 10 million lines", "<= 150 MB"),
)

DEFAULT = ("http-1g", "https-1g", "small-5000")
