"""File systems that lack features of a Linux disk: NFS, SMB, exFAT, FUSE. Calls that fail imitate them."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from servers.misbehaving import MisbehavingServer, content
from support.command_line import end_by, run, started
from support.compiling import compile_library
from support.files import MIB, names
from support.waiting import until

SMALL = 3000
LARGE = 9 * MIB

# The calls that each refuses, and with which errno.
KINDS: dict[str, str] = {
    "exFAT": "fallocate=EOPNOTSUPP link=EPERM tmpfile=EOPNOTSUPP xattr=EOPNOTSUPP chmod=EPERM",
    "NTFS-3G": "fallocate=EOPNOTSUPP tmpfile=EOPNOTSUPP noreplace=EINVAL chmod=EPERM",
    "NFS": "fallocate=EOPNOTSUPP flock=ENOLCK tmpfile=EOPNOTSUPP noreplace=EINVAL xattr=EOPNOTSUPP",
    "SMB": "link=EOPNOTSUPP tmpfile=EOPNOTSUPP noreplace=EINVAL xattr=EOPNOTSUPP utime=EPERM chmod=EPERM",
    "FUSE": "fallocate=ENOSYS flock=ENOSYS link=ENOSYS tmpfile=EISDIR noreplace=ENOSYS xattr=ENOSYS utime=ENOSYS",
}

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int lacks(const char *call) {
    static const struct { const char *name; int number; } numbers[] = {
        {"EPERM", EPERM}, {"EOPNOTSUPP", EOPNOTSUPP}, {"EINVAL", EINVAL}, {"ENOLCK", ENOLCK}, {"ENOSYS", ENOSYS},
        {"EISDIR", EISDIR}, {NULL, 0}};
    const char *found = getenv("LACKS");
    size_t length = strlen(call);
    for (; found && (found = strstr(found, call)); found += length) {
        if (found[length] != '=') continue;
        for (int i = 0; numbers[i].name; i++) {
            size_t end = strlen(numbers[i].name);
            if (strncmp(found + length + 1, numbers[i].name, end) == 0) { errno = numbers[i].number; return 1; }
        }
    }
    return 0;
}

#define REAL(type, name) static type (*real)() = NULL; if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)
#define REFUSES(type, name, call, parameters, arguments) \
    type name parameters { if (lacks(call)) return -1; REAL(type, #name); return real arguments; }

REFUSES(int, fallocate, "fallocate", (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
REFUSES(int, fallocate64, "fallocate", (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
REFUSES(int, link, "link", (const char *from, const char *to), (from, to))
REFUSES(int, linkat, "link", (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
REFUSES(int, flock, "flock", (int fd, int operation), (fd, operation))
REFUSES(int, utimensat, "utime", (int at, const char *path, const struct timespec times[2], int flags),
        (at, path, times, flags))
REFUSES(int, futimens, "utime", (int fd, const struct timespec times[2]), (fd, times))
REFUSES(int, fchmod, "chmod", (int fd, mode_t mode), (fd, mode))
REFUSES(int, fsetxattr, "xattr", (int fd, const char *name, const void *value, size_t size, int flags),
        (fd, name, value, size, flags))
REFUSES(ssize_t, fgetxattr, "xattr", (int fd, const char *name, void *value, size_t size), (fd, name, value, size))

int posix_fallocate(int fd, off_t at, off_t size) {
    if (lacks("fallocate")) return errno;
    REAL(int, "posix_fallocate");
    return real(fd, at, size);
}

static int opens(const char *name, int at, const char *path, int flags, mode_t mode) {
    if ((flags & O_TMPFILE) == O_TMPFILE && lacks("tmpfile")) return -1;
    return syscall(SYS_openat, at, path, flags, mode);
}
#define OPENS(name, parameters, at) \
    int name parameters { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, int); va_end(more); \
        return opens(#name, at, path, flags, mode); }
OPENS(open, (const char *path, int flags, ...), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD)
OPENS(openat, (int at, const char *path, int flags, ...), at)
OPENS(openat64, (int at, const char *path, int flags, ...), at)

long syscall(long number, ...) {
    va_list more;
    va_start(more, number);
    long a = va_arg(more, long), b = va_arg(more, long), c = va_arg(more, long), d = va_arg(more, long);
    long e = va_arg(more, long), f = va_arg(more, long);
    va_end(more);
    if (number == SYS_renameat2 && e != 0 && lacks("noreplace")) return -1;
    REAL(long, "syscall");
    return real(number, a, b, c, d, e, f);
}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD that makes the calls fail."""
    directory = tmp_path_factory.mktemp("poor")
    (directory / "poor.c").write_text(_SOURCE)
    return compile_library(directory / "poor.c", directory / "poor.so", "-ldl")


def _poor(library: Path, kind: str, **more: str) -> dict[str, Any]:
    """The environment of a process that sees such a file system. A sanitizer's library is still loaded first."""
    preload = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()
    return {"LD_PRELOAD": preload, "LACKS": KINDS[kind], **more}


@pytest.mark.parametrize("backend", ["native", "aria2"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_works_and_warns_once(
    server: MisbehavingServer, aria2c: Path, library: Path, tmp_path: Path, kind: str, backend: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    sizes = {f"{number}.bin": SMALL if number else LARGE for number in range(6)}
    urls = [server.url(f"/good/{name}", size=size, seed=int(size == LARGE)) for name, size in sizes.items()]
    words = ["--json", "--backend", backend, "-i", "-"]
    poor = _poor(library, kind, XDG_STATE_HOME=str(tmp_path / "state"))
    for again in (False, True):
        said = run(place, *words, stdin="\n".join(urls), **poor)
        assert said.returncode == 0, said.stderr
        assert {json.loads(line)["alreadyComplete"] for line in said.stdout.splitlines()} == {again}
        warnings = [line for line in said.stderr.splitlines() if "warning" in line]
        # A file system without locks is reported, once.
        assert len(warnings) == ("flock" in KINDS[kind]), warnings
    assert names(place) == sorted(sizes)
    for name, size in sizes.items():
        assert (place / name).read_bytes() == content(size, int(size == LARGE))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cut_short_resumes(server: MisbehavingServer, library: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    poor = _poor(library, kind)
    words = ["-o", "file.bin", "--json", "-x", "4", server.url("/shared-rate/x", size=24 * MIB, rate="6M")]
    with started(place, words, **poor) as process:
        until(lambda: server.bytes_sent >= 6 * MIB)
        end_by(process, signal.SIGINT)
    assert process.returncode == 130
    server.wait_idle()
    said = run(place, *words, **poor)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["resumed"] > MIB
    assert (place / "file.bin").read_bytes() == content(24 * MIB)
    assert names(place) == ["file.bin"]
