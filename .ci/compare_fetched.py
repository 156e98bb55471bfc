"""Fetch a file over http and https from a server on this machine, and compare the SHA-256.

    python .ci/compare_fetched.py COMMAND...      (such as "qemu-aarch64-static ... python3 -m rangefetch")

The server is this machine's nginx; the command may be for another processor or another C library.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from servers.nginx import Nginx
from servers.tls import make_certificates

SIZE_BYTES = 64 << 20
CONNECTIONS = "8"


def main() -> int:
    """Returns how many of the files differed."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        certificates = make_certificates(Path(name) / "certificates")
        with Nginx(certificates=certificates) as server:
            data = os.urandom(SIZE_BYTES)
            server.write("/data.bin", data)
            wanted = hashlib.sha256(data).hexdigest()
            for way in (server.url, server.https_url):
                url = way("/data.bin")
                server.clear_log()
                options = ["--ca-certificate", certificates.ca, "-q", "-x", CONNECTIONS, "-s", CONNECTIONS, "-d", name]
                subprocess.run([*sys.argv[1:], *options, url], check=True, stdout=subprocess.DEVNULL)
                fetched = Path(name) / "data.bin"
                found = hashlib.sha256(fetched.read_bytes()).hexdigest()
                fetched.unlink()
                lines = server.log(at_least=1)
                requests = f"{len(lines)} requests on {len({line.connection for line in lines})} connections"
                print(f"{url}: {requests}, {lines[0].protocol}, SHA-256 {found}", "" if found == wanted else "IS WRONG")
                wrong += found != wanted
    return wrong


if __name__ == "__main__":
    sys.exit(main())
