"""Build and check the source distribution, and from it a wheel for each platform in the table.

    python .ci/wheels.py [-o DIRECTORY] [PLATFORM...]      (all platforms, into wheelhouse/)

PLATFORM is a name from the table, or ``here`` for this machine's; the source distribution and the pure wheel are always
made. The C compiler is zig, installed from PyPI: it has the headers and symbols of every C library in the table, so one
machine builds for all of them. The headers of the Python that runs this script serve for all of them too, since the
extension uses only the stable ABI, and C's types have the same sizes on all of these platforms.

Files not tracked by git are left out; uncommitted changes are included. The same sources make the same bytes: the
compiler and Cython are pinned in the dependency group "packaging", and times are those of the last commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import sbom

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("Cython", "build", "setuptools", "wheel", "ziglang")


@dataclasses.dataclass(frozen=True)
class Target:
    """A platform: its wheel tag, its name for zig, its name for sysconfig, and the linker's options."""

    tag: str
    zig: str
    python: str
    link: str


_LINUX = f"-Wl,-T,{Path(__file__).with_name('no_debugging.ld')}"

# Python's symbols are resolved when the extension is loaded. The default install name would be the path of the build.
_MACOS = "-undefined dynamic_lookup -Wl,-install_name,@rpath/_engine.abi3.so"

TARGETS = [
    # pycurl's wheels need glibc 2.28 or later.
    Target("manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28", "manylinux_2_28-x86_64", _LINUX),
    Target("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28", "manylinux_2_28-aarch64", _LINUX),
    Target("musllinux_1_2_x86_64", "x86_64-linux-musl", "musllinux_1_2-x86_64", _LINUX),
    Target("musllinux_1_2_aarch64", "aarch64-linux-musl", "musllinux_1_2-aarch64", _LINUX),
    Target("macosx_11_0_x86_64", "x86_64-macos.11.0", "macosx-11.0-x86_64", _MACOS),
    Target("macosx_11_0_arm64", "aarch64-macos.11.0", "macosx-11.0-arm64", _MACOS),
]


def main() -> None:
    """Build and check, and only then replace the files in the directory."""
    parser = argparse.ArgumentParser(description="Build the source distribution and the wheels.")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "wheelhouse", metavar="DIRECTORY")
    parser.add_argument(
        "platforms", nargs="*", metavar="PLATFORM", choices=[*(each.tag for each in TARGETS), "here", []]
    )
    parser.add_argument(
        "--free-threaded",
        metavar="PYTHON",
        default=shutil.which("python3.14t"),
        help="a CPython 3.14 without the GIL, for which a wheel is built too (default: python3.14t, if it is in PATH)",
    )
    arguments = parser.parse_args()
    wanted = {_here() if name == "here" else name for name in arguments.platforms}
    targets = [target for target in TARGETS if not wanted or target.tag in wanted]

    os.umask(0o022)
    epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        # Every build gets this environment, without this machine's settings for compilers, paths and languages.
        builder = Builder(work, {"SOURCE_DATE_EPOCH": str(epoch_s), "LC_ALL": "C.UTF-8", "TZ": "UTC"})
        made = [builder.source_distribution(), builder.pure_wheel(), *map(builder.wheel, targets)]
        if arguments.free_threaded and (not wanted or _here() in wanted):
            made.append(builder.free_threaded_wheel(arguments.free_threaded))
        for path in made:
            if path.suffix == ".whl":
                builder.add_sbom(path, epoch_s)
        check(made)
        arguments.output.mkdir(parents=True, exist_ok=True)
        for old in arguments.output.glob("rangefetch-*"):
            old.unlink()
        for path in made:
            shutil.move(path, arguments.output / path.name)
    made = [arguments.output / path.name for path in made]
    note = arguments.output / f"{made[0].name.removesuffix('.tar.gz')}.provenance.json"
    note.write_text(provenance(made, epoch_s))
    for path in [*made, note]:
        print(_sha256(path), path.name, sep="  ")


class Builder:
    """Builds in its own directory, in which only the results remain."""

    def __init__(self, work: Path, environment: dict[str, str]) -> None:
        self._tree, self._built, self._log = work / "tree", work / "built", work / "log"
        unwanted = re.compile("RANGEFETCH_.*|.*FLAGS|CC|CXX|LDSHARED|AR|PYTHON.*|_PYTHON.*|ARCHFLAGS|MACOSX_.*|ZIG_.*")
        inherited = {name: value for name, value in os.environ.items() if not unwanted.fullmatch(name)}
        zig = {f"ZIG_{which}_CACHE_DIR": str(work / "zig") for which in ("LOCAL", "GLOBAL")}
        self._environment = inherited | environment | zig

    def source_distribution(self) -> Path:
        """Build from the files that git tracks. The wheels are built from the result, so a missing file is noticed."""
        checkout = self._tree.with_name("checkout")
        for name in filter(None, _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
            if (ROOT / name).exists():
                (checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, checkout / name)
        (path,) = self._build(checkout, "--sdist")
        self._run(sys.executable, ROOT / ".ci" / "settle_sdist.py", path)
        with tarfile.open(path) as archive:
            archive.extractall(self._tree, filter="data")
        (self._tree,) = self._tree.iterdir()
        return path

    def pure_wheel(self) -> Path:
        """Build as pip would, with the newest tools."""
        (path,) = self._build(self._tree, "--wheel", RANGEFETCH_PURE="1")
        return path

    def wheel(self, target: Target) -> Path:
        """Build with the pinned tools. C is generated once, and all targets are compiled from the same file."""
        print(f"building for {target.tag}", flush=True)
        (path,) = self._build(*(self._tree, "--wheel", "--no-isolation"), **self._for_target(target))
        if not path.name.endswith(f"-cp311-abi3-{target.tag}.whl"):
            raise SystemExit(f"{path.name} is no wheel for {target.tag}")
        return path

    def free_threaded_wheel(self, python: str) -> Path:
        """For this machine's processor and glibc, with the headers of that interpreter, which has no stable ABI."""
        (target,) = (target for target in TARGETS if target.tag == _here())
        print(f"building for {target.tag} without the GIL", flush=True)
        pinned = self._built.with_name("pinned.txt")
        pinned.write_text("".join(f"{tool}=={metadata.version(tool)}\n" for tool in ("Cython", "setuptools", "wheel")))
        (path,) = self._new(
            self._tree,
            *(sys.executable, "-m", "pip", "--python", python, "wheel", "--no-deps", "--no-cache-dir"),
            *("--wheel-dir", self._built, self._tree),
            PIP_CONSTRAINT=str(pinned),
            **self._for_target(target),
        )
        if not path.name.endswith(f"-cp314-cp314t-{target.tag}.whl"):
            raise SystemExit(f"{path.name} is not a wheel for {target.tag} without the GIL")
        return path

    def add_sbom(self, path: Path, epoch_s: int) -> None:
        """Repack the wheel with its list of components and a new RECORD."""
        unpacked = path.parent / "unpacked"
        self._run(sys.executable, "-m", "wheel", "unpack", "--dest", unpacked, path)
        (top,) = unpacked.iterdir()
        (information,) = top.glob("*.dist-info")
        (information / "sboms").mkdir()
        version = top.name.partition("-")[2]
        text = sbom.document(version, path.name, "-none-any" not in path.name, epoch_s)
        (information / "sboms" / "rangefetch.cdx.json").write_text(text)
        path.unlink()
        self._run(sys.executable, "-m", "wheel", "pack", "--dest-dir", path.parent, top)
        shutil.rmtree(unpacked)

    @staticmethod
    def _for_target(target: Target) -> dict[str, str]:
        """The environment that makes a build of an extension compile for the target."""
        # -I ignores PYTHONHOME, which an assembled interpreter sets for its children.
        compiler = f"{sys.executable} -I -m ziglang cc -target {target.zig}"
        return {
            "CC": compiler,
            "CFLAGS": "-DNDEBUG -fwrapv -fPIC -g0",  # instead of what this Python was configured with
            "LDSHARED": f"{compiler} -shared {target.link}",
            "_PYTHON_HOST_PLATFORM": target.python,
        }

    def _build(self, tree: Path, *options: str, **environment: str) -> set[Path]:
        return self._new(tree, sys.executable, "-m", "build", "--outdir", self._built, *options, tree, **environment)

    def _new(self, tree: Path, *command: str | Path, **environment: str) -> set[Path]:
        """Run a command that builds the tree, and return the new files."""
        before = set(self._built.glob("*"))
        for leftover in (*tree.glob("build/lib*"), *tree.glob("build/temp*"), *tree.glob("build/bdist*")):
            shutil.rmtree(leftover)
        self._run(*command, **environment)
        return set(self._built.glob("*")) - before

    def _run(self, *command: str | Path, **environment: str) -> None:
        """Run a command, showing its output only if it fails."""
        done = subprocess.run(
            command,
            env=self._environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(done.stdout)


def check(made: Iterable[Path]) -> None:
    """Check with the usual packaging tools. tests/packaging checks the contents of the extensions."""
    made = list(made)
    wheels = [path for path in made if path.suffix == ".whl"]
    compiled = [path for path in wheels if "-none-any" not in path.name]
    _check("twine", "check", "--strict", *made)
    _check("check-wheel-contents", *wheels)
    _check("abi3audit", "--strict", "--summary", *(path for path in compiled if "-abi3-" in path.name))
    for path in compiled:
        if "linux" in path.name:
            # This machine's libraries are not those of the wheel's platform, so they must not be searched.
            found = _check("auditwheel", "show", "--ldpaths", "/nonexistent", path)
            if not _bears_out(path.name, found):
                raise SystemExit(f"auditwheel does not bear out the tag of {path.name}:\n{found}")


def _bears_out(name: str, found: str) -> bool:
    """Whether the oldest tag that auditwheel finds has the same C library as the wheel's, and is not newer."""
    tag = re.compile(r"(?P<libc>(?:many|musl)linux)_(?P<major>\d+)_(?P<minor>\d+)_(?P<machine>x86_64|aarch64)")
    ours, theirs = tag.search(name), tag.search(found.partition("platform tag:")[2])
    if ours is None or theirs is None:
        return False
    version = [(int(match["major"]), int(match["minor"])) for match in (ours, theirs)]
    return ours["libc"] == theirs["libc"] and ours["machine"] == theirs["machine"] and version[0] >= version[1]


def provenance(made: Iterable[Path], epoch_s: int) -> str:
    """What the files were made from and with: an unsigned in-toto statement with an SLSA provenance predicate."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": _sha256(path)}} for path in made],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "make wheels",
                "externalParameters": {"SOURCE_DATE_EPOCH": epoch_s},
                "internalParameters": {"python": platform.python_version()},
                "resolvedDependencies": [
                    # "-dirty" marks uncommitted changes.
                    {
                        "name": "rangefetch",
                        "annotations": {
                            "commit": _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
                        },
                    },
                    *({"uri": f"pkg:pypi/{name.lower()}@{metadata.version(name)}"} for name in TOOLS),
                ],
            },
            "runDetails": {"builder": {"id": "make wheels"}},
        },
    }
    return json.dumps(statement, indent=2) + "\n"


def _here() -> str:
    """This machine's name in the table."""
    if sys.platform == "darwin":
        system = "macosx_11_0"
    else:
        system = "manylinux_2_28" if platform.libc_ver()[0] == "glibc" else "musllinux_1_2"
    return f"{system}_{platform.machine()}"


def _check(*command: str | Path) -> str:
    """Run a check and print that it passed; if it failed, exit with its output."""
    done = subprocess.run(
        [Path(sys.executable).with_name(str(command[0])), *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}:\n{done.stdout}")
    print(f"{command[0]}: passed")
    return done.stdout


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
