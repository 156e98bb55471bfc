/* The clock and the files: the engine's system calls are answered here, those of other code by the real system.
 *
 * Calls on simulated files are recognised by their descriptors, which are higher than any that the system hands out.
 * Calls for the clock and for sockets are recognised by their caller: the return address is in the engine's code.
 */
#define _GNU_SOURCE
#include "simulator.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

World world;

/* ---- Random numbers, and the record of what happened ------------------------------------------------------------- */

static uint64_t drawn;

uint64_t draw(void) {
    /* splitmix64 */
    uint64_t z = (drawn += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

int64_t draw_below(int64_t bound) { return bound <= 0 ? 0 : (int64_t)(draw() % (uint64_t)bound); }

static void add_to_digest(uint64_t what) { world.digest = (world.digest ^ what) * 1099511628211ULL; }

void note(const char *what, int64_t one, int64_t other) {
    static int tracing = -1;
    if (world_is_over()) return;
    add_to_digest((uint64_t)world.now_us);
    for (const char *at = what; *at; at++) add_to_digest((uint64_t)*at);
    add_to_digest((uint64_t)one);
    add_to_digest((uint64_t)other);
    if (tracing < 0) tracing = getenv("SIMULATED_TRACE") != NULL;
    if (tracing)
        fprintf(stderr, "%.6f %s %lld %lld\n", (double)(world.now_us - BEGINNING_US) / 1e6, what, (long long)one,
                (long long)other);
}

void broken(const char *what, int64_t number) {
    if (world.broken[0] == 0) snprintf(world.broken, sizeof world.broken, "%s (%lld)", what, (long long)number);
}

Fault *fault_of(int low, int high, int64_t server, int64_t number) {
    for (int64_t i = 0; i < world.fault_count; i++) {
        Fault *fault = &world.faults[i];
        if (fault->kind < low || fault->kind > high || fault->server != server || number < fault->first) continue;
        if (fault->count >= 0 && number >= fault->first + fault->count) continue;
        world.fired[i]++;
        note("fault", fault->kind, number);
        return fault;
    }
    return NULL;
}

static int64_t calls[128];

Fault *system_fault(int kind) {
    int64_t number = calls[kind]++;
    return fault_of(kind, kind, 0, number);
}

/* ---- Which calls are the engine's -------------------------------------------------------------------------------- */

static uintptr_t engine_start, engine_end;

static int look_for_text(struct dl_phdr_info *info, size_t size, void *arg) {
    uintptr_t wanted = *(uintptr_t *)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X)) continue;
        if (wanted >= start && wanted < start + info->dlpi_phdr[i].p_memsz) {
            engine_start = start;
            engine_end = start + info->dlpi_phdr[i].p_memsz;
            return 1;
        }
    }
    return 0;
}

/* Notes where the engine's code is. Called by curl_version_info, the first libcurl function that the engine calls. */
void the_engine_is_at(void *caller) {
    uintptr_t wanted = (uintptr_t)caller;
    if (engine_end == 0) dl_iterate_phdr(look_for_text, &wanted);
}

#define BY_THE_ENGINE                                          \
    ((uintptr_t)__builtin_return_address(0) >= engine_start && \
     (uintptr_t)__builtin_return_address(0) < engine_end)

#define REAL(name)                                                     \
    static __typeof__(&name) real;                                     \
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #name);

/* ---- The clock --------------------------------------------------------------------------------------------------- */

void passes(int64_t us) {
    if (!world_is_over()) world.now_us += us;
}

int clock_gettime(clockid_t which, struct timespec *time) {
    REAL(clock_gettime)
    if (!BY_THE_ENGINE || (which != CLOCK_MONOTONIC && which != CLOCK_THREAD_CPUTIME_ID)) return real(which, time);
    int64_t us = world.now_us;
    if (which == CLOCK_MONOTONIC) passes(1);
    else us = us / 100 * world.cpu_percent;
    time->tv_sec = us / 1000000;
    time->tv_nsec = us % 1000000 * 1000;
    return 0;
}

int nanosleep(const struct timespec *time, struct timespec *left) {
    REAL(nanosleep)
    if (!BY_THE_ENGINE) return real(time, left);
    passes((int64_t)time->tv_sec * 1000000 + time->tv_nsec / 1000);
    return 0;
}

/* ---- Files: each takes as much memory as was written to it ------------------------------------------------------- */

typedef struct {
    char *data;
    int64_t room;
    int64_t size;
    char name[64]; /* empty: it has none */
    int open;
    int returned; /* the engine has reported its end, and may no longer write to it */
} File;

static File files[MOST_FILES];
static int file_count;

static File *file_at(int fd) {
    if (fd < FIRST_FILE || fd >= FIRST_FILE + file_count) {
        broken("a descriptor that was never opened", fd);
        return NULL;
    }
    if (!files[fd - FIRST_FILE].open) {
        broken("a descriptor that was closed", fd);
        return NULL;
    }
    return &files[fd - FIRST_FILE];
}

static void grow(File *file, int64_t size) {
    if (size > file->room) {
        int64_t room = file->room ? file->room : 65536;
        while (room < size) room *= 2;
        file->data = realloc(file->data, (size_t)room);
        if (file->data == NULL) abort();
        memset(file->data + file->room, 0, (size_t)(room - file->room));
        file->room = room;
    }
    if (size > file->size) file->size = size;
}

/* Creates a file, in memory left over from an earlier world. */
int simulated_file(const char *name) {
    if (file_count == MOST_FILES) return -1;
    File *file = &files[file_count++];
    if (file->data) memset(file->data, 0, (size_t)file->size);
    file->size = 0;
    file->open = 1;
    file->returned = 0;
    snprintf(file->name, sizeof file->name, "%s", name);
    return FIRST_FILE + file_count - 1;
}

/* Sets whether the engine may no longer write to the file. */
void simulated_return(int fd, int returned) { files[fd - FIRST_FILE].returned = returned; }

int simulated_file_named(const char *name) {
    for (int i = 0; i < file_count; i++)
        if (strcmp(files[i].name, name) == 0) return FIRST_FILE + i;
    return -1;
}

/* Fills in bytes that an earlier run left in the file. */
void simulated_fill(int fd, int64_t resource, int64_t version, int64_t start, int64_t end) {
    File *file = &files[fd - FIRST_FILE];
    grow(file, end);
    content_at(resource, version, start, file->data + start, end - start);
}

int64_t simulated_size(int fd) { return files[fd - FIRST_FILE].size; }

int simulated_open(int fd) { return files[fd - FIRST_FILE].open; }

void simulated_close(int fd) { files[fd - FIRST_FILE].open = 0; }

/* The first position in a part of a file that differs from a version of a resource; -1 if none does. */
int64_t simulated_difference(int fd, int64_t resource, int64_t version, int64_t start, int64_t end) {
    File *file = &files[fd - FIRST_FILE];
    char expected[16384];
    while (start < end) {
        int64_t size = end - start < (int64_t)sizeof expected ? end - start : (int64_t)sizeof expected;
        content_at(resource, version, start, expected, size);
        if (start + size > file->size) return file->size;
        if (memcmp(file->data + start, expected, (size_t)size) != 0)
            for (int64_t i = 0; i < size; i++)
                if (file->data[start + i] != expected[i]) return start + i;
        start += size;
    }
    return -1;
}

void the_system_begins(void) {
    drawn = (uint64_t)world.seed;
    memset(calls, 0, sizeof calls);
    file_count = 0;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(pwrite)
    if (fd < DIRECTORY) return real(fd, data, size, offset);
    File *file = file_at(fd);
    Fault *fault;
    if (file == NULL || offset < 0) return errno = EBADF, -1;
    if (file->returned) broken("a file was written after the last word about it", offset);
    note("write", offset, (int64_t)size);
    passes(2);
    if ((fault = system_fault(INTERRUPTED))) return errno = EINTR, -1;
    if ((fault = system_fault(NO_SPACE))) return errno = (int)fault->a, -1;
    if ((fault = system_fault(SHORT_WRITE)) && size > 1) size = 1 + (size_t)draw_below((int64_t)size - 1);
    grow(file, offset + (int64_t)size);
    memcpy(file->data + offset, data, size);
    world.writes++;
    world.written_bytes += (int64_t)size;
    return (ssize_t)size;
}

ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    REAL(pread)
    if (fd < DIRECTORY) return real(fd, data, size, offset);
    File *file = file_at(fd);
    if (file == NULL) return errno = EBADF, -1;
    int64_t left = file->size - offset;
    if (left <= 0) return 0;
    if ((int64_t)size > left) size = (size_t)left;
    memcpy(data, file->data + offset, size);
    return (ssize_t)size;
}

int ftruncate(int fd, off_t size) {
    REAL(ftruncate)
    if (fd < DIRECTORY) return real(fd, size);
    File *file = file_at(fd);
    Fault *fault = system_fault(NO_LENGTH_SET);
    if (file == NULL) return errno = EBADF, -1;
    if (fault) return errno = (int)fault->a, -1;
    if (size < file->size) broken("a file was cut", size);
    grow(file, size);
    return 0;
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    va_list list;
    long a[6];
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_pwritev2 && (int)a[0] >= DIRECTORY) {
        const struct iovec *one = (const struct iovec *)a[1];
        return pwrite((int)a[0], one->iov_base, one->iov_len, (off_t)a[3]);
    }
    if ((number != SYS_fallocate && number != SYS_sync_file_range) || (int)a[0] < DIRECTORY)
        return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    File *file = file_at((int)a[0]);
    if (file == NULL) return errno = EBADF, -1;
    if (number == SYS_fallocate) {
        Fault *fault = system_fault(NO_FALLOCATE);
        if (fault) return errno = (int)fault->a, -1;
        if ((int)a[1] == 0) grow(file, a[2] + a[3]);
        return 0;
    }
    return 0;
}

int openat(int directory, const char *path, int flags, ...) {
    REAL(openat)
    va_list list;
    va_start(list, flags);
    int mode = va_arg(list, int);
    va_end(list);
    if (directory != DIRECTORY) return real(directory, path, flags, mode);
    Fault *fault = system_fault(NO_NAMELESS);
    if (fault) return errno = (int)fault->a, -1;
    int fd = simulated_file("");
    return fd >= 0 ? fd : (errno = EMFILE, -1);
}

int linkat(int from, const char *old, int to, const char *name, int flags) {
    REAL(linkat)
    if (to != DIRECTORY) return real(from, old, to, name, flags);
    if (!old[0]) return errno = ENOENT, -1; /* as before Linux 6.10 */
    File *file = file_at(atoi(strrchr(old, '/') + 1));
    Fault *fault = system_fault(NO_LINK);
    if (file == NULL) return errno = EBADF, -1;
    if (fault) return errno = (int)fault->a, -1;
    if (simulated_file_named(name) >= 0) return errno = EEXIST, -1;
    snprintf(file->name, sizeof file->name, "%s", name);
    return 0;
}

int renameat(int from, const char *old, int to, const char *name) {
    REAL(renameat)
    if (to != DIRECTORY) return real(from, old, to, name);
    int before = simulated_file_named(name);
    int fd = simulated_file_named(old);
    if (fd < 0) return errno = ENOENT, -1;
    if (before >= 0) files[before - FIRST_FILE].name[0] = 0;
    snprintf(files[fd - FIRST_FILE].name, sizeof files[0].name, "%s", name);
    return 0;
}

int unlinkat(int directory, const char *name, int flags) {
    REAL(unlinkat)
    if (directory != DIRECTORY) return real(directory, name, flags);
    int fd = simulated_file_named(name);
    if (fd < 0) return errno = ENOENT, -1;
    files[fd - FIRST_FILE].name[0] = 0;
    return 0;
}

int fstatat(int directory, const char *name, struct stat *status, int flags) {
    REAL(fstatat)
    if (directory != DIRECTORY) return real(directory, name, status, flags);
    memset(status, 0, sizeof *status);
    if (simulated_file_named(name) < 0) return errno = ENOENT, -1;
    status->st_mode = S_IFREG | 0644;
    return 0;
}

int fstat(int fd, struct stat *status) {
    REAL(fstat)
    if (fd < DIRECTORY) return real(fd, status);
    return errno = EBADF, -1;
}

int futimens(int fd, const struct timespec times[2]) {
    REAL(futimens)
    if (fd < DIRECTORY) return real(fd, times);
    return file_at(fd) ? 0 : (errno = EBADF, -1);
}

int socket(int family, int type, int protocol) {
    REAL(socket)
    static int next = FIRST_SOCKET;
    if (!BY_THE_ENGINE) return real(family, type, protocol);
    Fault *fault = system_fault(NO_SOCKET);
    if (fault) return errno = (int)fault->a, -1;
    __atomic_add_fetch(&world.open_sockets, 1, __ATOMIC_RELAXED);
    return next++;
}

/* Reports no limit, since the descriptors of simulated sockets are higher than the real one. */
int getrlimit(__rlimit_resource_t what, struct rlimit *limit) {
    REAL(getrlimit)
    int result = real(what, limit);
    if (BY_THE_ENGINE && what == RLIMIT_NOFILE) limit->rlim_cur = RLIM_INFINITY;
    return result;
}

int close(int fd) {
    REAL(close)
    if (fd < DIRECTORY) return real(fd);
    if (fd >= FIRST_SOCKET) {
        if (__atomic_sub_fetch(&world.open_sockets, 1, __ATOMIC_RELAXED) < 0) broken("a socket was closed twice", fd);
        return 0;
    }
    File *file = file_at(fd);
    if (file == NULL) return errno = EBADF, -1;
    file->open = 0;
    return 0;
}

/* The same functions under the names that code built with _FILE_OFFSET_BITS=64 calls; Python's headers define that. */
#define SAME(type, name, arguments) __attribute__((alias(#name))) type name##64 arguments;
SAME(ssize_t, pwrite, (int, const void *, size_t, off_t))
SAME(ssize_t, pread, (int, void *, size_t, off_t))
SAME(int, ftruncate, (int, off_t))
SAME(int, openat, (int, const char *, int, ...))
__attribute__((alias("getrlimit"))) int getrlimit64(__rlimit_resource_t, struct rlimit64 *);
__attribute__((alias("fstatat"))) int fstatat64(int, const char *, struct stat64 *, int);
__attribute__((alias("fstat"))) int fstat64(int, struct stat64 *);
