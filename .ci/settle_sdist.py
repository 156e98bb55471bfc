"""Rewrite a source distribution with fixed order, owners, modes and times, so that its bytes depend only on its files.

python .ci/settle_sdist.py FILE.tar.gz      (times become SOURCE_DATE_EPOCH)
"""

import gzip
import io
import os
import sys
import tarfile
from pathlib import Path


def settle(path: Path, epoch_s: int) -> None:
    """Rewrite the archive at ``path``."""
    packed = io.BytesIO()
    with (
        tarfile.open(path) as old,
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=epoch_s) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime = epoch_s
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(packed.getvalue())


if __name__ == "__main__":
    settle(Path(sys.argv[1]), int(os.environ["SOURCE_DATE_EPOCH"]))
