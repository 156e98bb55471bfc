"""How many bytes one second of processor time downloads, for each protocol and cipher.

Only the processor time of the loop's thread counts (``File.effort``), from adding the file to its end, and not that of
the server or of Python. The figures therefore hold on a busy machine too, except for contention for its caches.

    python benches/per_core.py [--rounds 5] [--mib 512] [--directory /dev/shm]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine.driving import Driver
from rangefetch import _engine
from rangefetch._engine import Profile
from rangefetch.net import libcurl
from servers.nginx import Nginx
from servers.tls import make_certificates

_MIB = 1 << 20
_CIPHERS = {
    "https, AES-128-GCM": "TLS_AES_128_GCM_SHA256",
    "https, AES-256-GCM": "TLS_AES_256_GCM_SHA384",
    "https, ChaCha20-Poly1305": "TLS_CHACHA20_POLY1305_SHA256",
}
_HTTP2 = 4  # CURL_HTTP_VERSION_2TLS


def _profile(cipher: str = "", *, http2: bool = False) -> Profile:
    number = _engine.constants()
    unverified = (number["CURLOPT_SSL_VERIFYPEER"], number["CURLOPT_SSL_VERIFYHOST"])
    settings: list[tuple[int, int | str]] = [(option, 0) for option in unverified]
    wanted: list[tuple[str, int | str]] = [("TLS13_CIPHERS", cipher), ("HTTP_VERSION", _HTTP2 if http2 else 0)]
    for name, value in wanted:
        number_of = _engine.option_number(name)
        if value and number_of is not None:
            settings.append((number_of, value))
    return Profile(settings, [], [])


def _ways(server: Nginx) -> dict[str, tuple[str, Profile]]:
    path = "/file.bin"
    ways = {"http": (server.url(path), _profile())}
    for name, cipher in _CIPHERS.items():
        ways[name] = (server.https_url(path), _profile(cipher))
    ways["HTTP/2, AES-256-GCM"] = (server.http2_url(path), _profile(_CIPHERS["https, AES-256-GCM"], http2=True))
    return ways


def _fetch(directory: Path, url: str, profile: Profile) -> dict[str, Any]:
    """Fetch one file with a new engine, so that it cannot use connections of another way."""
    with Driver(directory) as driver:
        file = driver.fill(url, profile=profile, lanes=16)
        file.tag.path.unlink()
        answer = next(event for event in driver.log if event.name == "ANSWERED").headers.lower()
        spoken = dict(line.split(": ", 1) for line in answer.splitlines() if line.startswith("x-spoken"))
        return {"bytes_per_us": file.size / file.effort["cpu_us"], "spoken": spoken.get("x-spoken", "")}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--mib", type=int, default=512)
    arguments.add_argument("--directory", type=Path, help="where the files go, such as /dev/shm (else a temporary one)")
    asked = arguments.parse_args()
    libcurl.load()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        says = 'ssl_protocols TLSv1.3; add_header X-Spoken "$server_protocol $ssl_cipher";'
        with Nginx(certificates=make_certificates(directory), options=says) as server:
            server.write("/file.bin", os.urandom(_MIB) * asked.mib)
            ways = _ways(server)
            found: dict[str, list[float]] = {way: [] for way in ways}
            spoken: dict[str, str] = {}
            for _ in range(asked.rounds):
                for way, (url, profile) in ways.items():
                    seen = _fetch(asked.directory or directory, url, profile)
                    found[way].append(seen["bytes_per_us"] / 1000)
                    spoken[way] = seen["spoken"]
    print("| GB for each second of one core | as the server says | best | median | least |")
    print("|---|---|---:|---:|---:|")
    for way, rates in found.items():
        print(f"| {way} | {spoken[way]} | {max(rates):.2f} | {statistics.median(rates):.2f} | {min(rates):.2f} |")


if __name__ == "__main__":
    main()
