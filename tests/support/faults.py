"""A child process whose calls fail on request, for failures of disk, resolver, kernel or libcurl that are very rare.

    with_faults(tmp_path)      # what to add to the child's environment
    fail("pwrite", errno.EIO)  # in the child: the next call of it fails, once

System calls are replaced by a library that is loaded before the C library (``LD_PRELOAD``), so that libcurl's own calls
fail too. libcurl's functions are replaced by a library that is linked with libcurl and that the engine loads in its
place (``RANGEFETCH_LIBCURL``).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from rangefetch.net import libcurl
from support.compiling import compile_library

__all__ = ["fail", "happened", "with_faults"]

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* For each call: the errno of those that fail, how many work before them, how many fail, and how many have failed. */
typedef struct { const char *name; int failure; int before; int left; int count; } fault;
static fault faults[] = {
    {"pwrite"}, {"poll"}, {"getaddrinfo"}, {"sync_file_range"}, {"openat"}, {"realloc"},
    {"pwritev2"}, {"curl_multi_perform"}, {"curl_multi_poll"}, {"curl_multi_add_handle"}, {NULL}};
enum { PWRITE, POLL, GETADDRINFO, SYNC_FILE_RANGE, OPENAT, REALLOC, PWRITEV2 };

int rf_test_fail(const char *name, int failure, int times, int after) {
    for (fault *each = faults; each->name; each++) {
        if (strcmp(each->name, name) == 0) {
            __atomic_store_n(&each->failure, failure, __ATOMIC_SEQ_CST);
            __atomic_store_n(&each->before, after, __ATOMIC_SEQ_CST);
            __atomic_store_n(&each->left, times, __ATOMIC_SEQ_CST);
            return 0;
        }
    }
    return -1;
}

int rf_test_happened(const char *name) {
    for (fault *each = faults; each->name; each++)
        if (strcmp(each->name, name) == 0) return __atomic_load_n(&each->count, __ATOMIC_SEQ_CST);
    return -1;
}

static int fails(int which) {
    fault *each = &faults[which];
    if (__atomic_load_n(&each->left, __ATOMIC_SEQ_CST) <= 0) return 0;
    if (__atomic_load_n(&each->before, __ATOMIC_SEQ_CST) > 0 &&
        __atomic_fetch_sub(&each->before, 1, __ATOMIC_SEQ_CST) > 0)
        return 0;
    if (__atomic_fetch_sub(&each->left, 1, __ATOMIC_SEQ_CST) <= 0) return 0;
    __atomic_add_fetch(&each->count, 1, __ATOMIC_SEQ_CST);
    errno = each->failure;
    return 1;
}

/* For functions of libcurl's: the code with which this call fails; 0: it works. */
int rf_test_failure(const char *name) {
    for (int which = 0; faults[which].name; which++)
        if (strcmp(faults[which].name, name) == 0) return fails(which) ? errno : 0;
    return 0;
}

#define REAL(type, name, arguments) \
    static type(*real) arguments; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

/* Only a thread of the engine's is failed: the test's own Python polls and writes, too. */
static int is_loop(void) {
    char name[16] = "";
    return pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strncmp(name, "rangefetch-loop", 15) == 0;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(ssize_t, pwrite, (int, const void *, size_t, off_t));
    return is_loop() && fails(PWRITE) ? -1 : real(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

int poll(struct pollfd *fds, nfds_t count, int timeout) {
    REAL(int, poll, (struct pollfd *, nfds_t, int));
    return is_loop() && fails(POLL) ? -1 : real(fds, count, timeout);
}

/* The nameless file of an item of a batch. */
int openat(int directory_fd, const char *path, int flags, ...) {
    REAL(int, openat, (int, const char *, int, ...));
    va_list list;
    va_start(list, flags);
    unsigned int mode = va_arg(list, unsigned int);
    va_end(list);
    return is_loop() && strcmp(path, ".") == 0 && fails(OPENAT) ? -1 : real(directory_fd, path, flags, mode);
}
int openat64(int directory_fd, const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    unsigned int mode = va_arg(list, unsigned int);
    va_end(list);
    return openat(directory_fd, path, flags, mode);
}

void *realloc(void *old, size_t size) {
    REAL(void *, realloc, (void *, size_t));
    return is_loop() && fails(REALLOC) ? NULL : real(old, size);
}

/* pwritev2 fails when it shall, sync_file_range is only counted. */
long syscall(long number, ...) {
    REAL(long, syscall, (long, ...));
    va_list list;
    va_start(list, number);
    long given[6];
    for (int i = 0; i < 6; i++) given[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_sync_file_range) __atomic_add_fetch(&faults[SYNC_FILE_RANGE].count, 1, __ATOMIC_SEQ_CST);
    if (number == SYS_pwritev2 && is_loop() && fails(PWRITEV2)) return -1;
    return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

/* A name look-up that "fails" hangs: for as many seconds as its errno says. One that works finds this machine. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    REAL(int, getaddrinfo, (const char *, const char *, const struct addrinfo *, struct addrinfo **));
    if (!node || strncmp(node, "hangs", 5) != 0) return real(node, service, hints, found);
    if (fails(GETADDRINFO)) sleep((unsigned)errno);
    return real("127.0.0.1", service, hints, found);
}
"""

_LIBCURL_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

int rf_test_failure(const char *name);
extern void *curl_easy_init(void);  /* so that the library is linked with libcurl, which has all the others */
void *(*const rf_test_libcurl)(void) = curl_easy_init;

#define REPLACE(name, parameters, arguments)                         \
    int name parameters {                                            \
        static int(*real) parameters;                                \
        if (!real) *(void **)&real = dlsym(library(), #name);        \
        int failure = rf_test_failure(#name);                        \
        return failure ? failure : real arguments;                   \
    }

static void *library(void) { return dlopen(LIBCURL, RTLD_NOW | RTLD_LOCAL); }

REPLACE(curl_multi_perform, (void *multi, int *running), (multi, running))
REPLACE(curl_multi_poll, (void *multi, void *fds, unsigned int count, int timeout_ms, int *ready),
        (multi, fds, count, timeout_ms, ready))
REPLACE(curl_multi_add_handle, (void *multi, void *easy), (multi, easy))
"""


def with_faults(directory: Path) -> dict[str, str]:
    """Environment variables for a child whose calls can be made to fail. The libraries are built in ``directory``."""
    calls, functions = directory / "faults.so", directory / "libcurl-faults.so"
    if not calls.exists():
        _compile(_SOURCE, calls, "-ldl")
        real = libcurl.load().path
        _compile(_LIBCURL_SOURCE, functions, f'-DLIBCURL="{real}"', real, f"-Wl,-rpath,{Path(real).parent}", "-ldl")
    return {
        # After any library already listed, because a sanitizer must come first.
        "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {calls}".strip(),
        "RANGEFETCH_LIBCURL": os.fspath(functions),
    }


def _compile(source: str, library: Path, *options: str) -> None:
    path = library.with_suffix(".c")
    path.write_text(source)
    compile_library(path, library, *options)


def fail(name: str, failure: int, times: int = 1, after: int = 0) -> None:
    """In the child: let ``after`` calls of ``name`` by a loop succeed, then make the next ``times`` fail with
    ``failure``, an errno or a libcurl code."""
    assert ctypes.CDLL(None).rf_test_fail(name.encode(), failure, times, after) == 0


def happened(name: str) -> int:
    """In the child: how many calls of ``name`` have been made to fail; for ``sync_file_range``, how many were made."""
    return int(ctypes.CDLL(None).rf_test_happened(name.encode()))
