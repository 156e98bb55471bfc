/* What differs between Linux, macOS and Windows, and the few things that are better written in C than in Cython. */
#ifndef RANGEFETCH_PLATFORM_H
#define RANGEFETCH_PLATFORM_H

#include "checks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* The largest file: 65,536 blocks of 4 GiB (see sizes.pxd). */
#define RF_LARGEST_BLOCK_BYTES (INT64_C(1) << 32)
#define RF_LARGEST_FILE_BYTES (RF_LARGEST_BLOCK_BYTES << 16)

/* Higher limits are lowered to this (see bucket.pxd): times the microseconds of a second, it still fits 64 bits. */
#define RF_LARGEST_BYTES_PER_S (INT64_C(1) << 42)

/* The longest time between two requests to a host (see pace.pxd): a day. */
#define RF_LONGEST_EVERY_US INT64_C(86400000000)

/* For values that one thread writes and others read without a lock: stores release, loads acquire. */
#define rf_store(where, value) __atomic_store_n((where), (value), __ATOMIC_RELEASE)
#define rf_load(where) __atomic_load_n((where), __ATOMIC_ACQUIRE)

/* For numbers with one writer, where readers need only the number itself (relaxed): they imply nothing about others. */
#define rf_note(where, value) __atomic_store_n((where), (value), __ATOMIC_RELAXED)
#define rf_count(where, value) rf_note((where), (__typeof__(*(where)))(*(where) + (value)))
#define rf_peek(where) __atomic_load_n((where), __ATOMIC_RELAXED)

/* For numbers that several threads change. */
#define rf_add(where, value) __atomic_add_fetch((where), (value), __ATOMIC_ACQ_REL)

/* Stores `value` if the old value is still `expected`; returns whether it did. */
static inline int rf_swap_if(int64_t *where, int64_t expected, int64_t value) {
    return __atomic_compare_exchange_n(where, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The stack for libcurl and its TLS library. The default is 128 KiB with musl, and 8 MiB with glibc. */
#define RF_STACK_BYTES ((size_t)1 << 20)

#ifdef _WIN32
#include "platform_windows.h"
#else
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#endif

/* libcurl's type for sockets: on Windows a handle, not a descriptor. */
typedef int rf_socket_t;

static inline int64_t rf_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Processor time of the calling thread. */
static inline int64_t rf_thread_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline void rf_sleep_ms(int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

/* Writes as much as the system does in one call; -1: see errno. */
static inline int64_t rf_pwrite(int fd, const char *data, size_t size, int64_t offset) {
    return pwrite(fd, data, size, (off_t)offset);
}
/* The same, but does not leave the data in the page cache: the kernel starts writing it to the disk at once, and then
 * drops the pages (RWF_DONTCACHE, pwritev2(2)). Fails with EOPNOTSUPP, having written nothing, if the kernel, a sandbox
 * or the filesystem does not support this. */
static inline int64_t rf_pwrite_uncached(int fd, const char *data, size_t size, int64_t offset) {
#if defined(__linux__) && defined(SYS_pwritev2)
    struct iovec one = {(void *)(uintptr_t)data, size};
    unsigned long low = (unsigned long)offset, high = (unsigned long)((uint64_t)offset >> 32);
    long written = syscall(SYS_pwritev2, fd, &one, 1ul, low, high, 0x80ul);
    if (written < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL)) errno = EOPNOTSUPP;
    return written;
#else
    (void)fd, (void)data, (void)size, (void)offset;
    errno = EOPNOTSUPP;
    return -1;
#endif
}
static inline int64_t rf_pread(int fd, char *data, size_t size, int64_t offset) {
    return pread(fd, data, size, (off_t)offset);
}

/* Sets the length without reserving space. Returns 0 or the errno. */
static inline int rf_set_length(int fd, int64_t size) {
    return ftruncate(fd, (off_t)size) == 0 ? 0 : errno;
}

/* Reserves the space (fallocate(2), which never writes zeros as posix_fallocate may), or only sets the length if the
 * filesystem cannot do that. Returns 0 or the errno; the purpose is to find ENOSPC early. */
static inline int rf_reserve(int fd, int64_t size) {
#ifdef __linux__
    while (syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)size) != 0) {
        if (errno == EINTR) continue;
        if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) break;
        return errno;
    }
#endif
    return rf_set_length(fd, size);
}

/* Has the kernel start writing a part of a file to the disk, without waiting for it. */
static inline void rf_start_writeback(int fd, int64_t offset, int64_t size) {
#ifdef __linux__
    /* SYNC_FILE_RANGE_WRITE */
    long ignored = syscall(SYS_sync_file_range, fd, (off_t)offset, (off_t)size, 2u);
    (void)ignored; /* if the filesystem cannot, it writes when it likes */
#else
    (void)fd, (void)offset, (void)size;
#endif
}

/* Returns the space of a part of a file to the filesystem. Returns 0 or the errno. */
static inline int rf_punch_hole(int fd, int64_t offset, int64_t size) {
#ifdef __linux__
    /* FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
    return syscall(SYS_fallocate, fd, 0x02 | 0x01, (off_t)offset, (off_t)size) == 0 ? 0 : errno;
#else
    (void)fd, (void)offset, (void)size;
    return ENOTSUP;
#endif
}

/* Opens a new file without a name in the directory. Returns 0 or the errno, with *fd at -1; it is an error if the
 * filesystem or the system has no such files. */
static inline int rf_open_nameless(int directory_fd, int *fd) {
#ifdef O_TMPFILE
    *fd = openat(directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (*fd < 0) return errno;
    rf_live_add(RF_LIVE_DESCRIPTORS, 1);
    return 0;
#else
    (void)directory_fd;
    *fd = -1;
    return ENOTSUP;
#endif
}

/* Opens a new file in memory. Returns 0 or the errno, with *fd at -1. */
static inline int rf_open_memory(int *fd) {
#ifdef SYS_memfd_create /* older C libraries have no wrapper */
    *fd = (int)syscall(SYS_memfd_create, "rangefetch", 1U /* MFD_CLOEXEC */);
    if (*fd < 0) return errno;
    rf_live_add(RF_LIVE_DESCRIPTORS, 1);
    return 0;
#else
    *fd = -1;
    return ENOTSUP;
#endif
}

/* Renames atomically, unless the new name is taken (EEXIST). Returns 0 or the errno: EINVAL or ENOSYS if the filesystem
 * or the kernel does not support it (renameat2(2)). */
static inline int rf_rename_free(const char *from, const char *to) {
#if defined(__linux__) && defined(SYS_renameat2)
    /* RENAME_NOREPLACE */
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1u) == 0 ? 0 : errno;
#elif defined(__APPLE__)
    extern int renamex_np(const char *, const char *, unsigned int);
    /* RENAME_EXCL */
    return renamex_np(from, to, 4u) == 0 ? 0 : errno;
#else
    (void)from, (void)to;
    return ENOSYS;
#endif
}

/* Whether the name belongs to something that a file must not replace: a directory, a device, a FIFO, a socket, or a
 * link to one of these. */
static inline int rf_is_special(int directory_fd, const char *name) {
    struct stat status;
    return fstatat(directory_fd, name, &status, 0) == 0 && !S_ISREG(status.st_mode);
}

/* Gives a file without a name one that is free. Returns 0 or the errno. */
static inline int rf_link_nameless(int fd, int directory_fd, const char *name) {
    char self[64];
#ifdef AT_EMPTY_PATH
    /* Saves a look-up in /proc. Since Linux 6.10 whoever opened the file may do this, before that only root. */
    if (linkat(fd, "", directory_fd, name, AT_EMPTY_PATH) == 0) return 0;
    if (errno == EEXIST) return EEXIST;
#endif
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, directory_fd, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
}

/* Atomically gives a file without a name its name, which must be free unless `overwrite`. Returns 0 or the errno. */
static inline int rf_publish_nameless(int fd, int directory_fd, const char *name, int overwrite) {
    char beside[300];
    int failed = rf_link_nameless(fd, directory_fd, name);
    if (failed != EEXIST || !overwrite) return failed;
    if (rf_is_special(directory_fd, name)) return EEXIST;
    /* A link cannot replace a file: link it under a temporary name and rename that. */
    if (snprintf(beside, sizeof beside, "%s.%d.tmp", name, fd) >= (int)sizeof beside) return ENAMETOOLONG;
    failed = rf_link_nameless(fd, directory_fd, beside);
    if (failed) return failed;
    if (renameat(directory_fd, beside, directory_fd, name) == 0) return 0;
    failed = errno;
    unlinkat(directory_fd, beside, 0);
    return failed;
}

static inline int rf_is_there(int directory_fd, const char *name) {
    struct stat status;
    return fstatat(directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

/* The size of the file of that name: -1 if there is none, -2 if it is not a regular file. */
static inline int64_t rf_size_there(int directory_fd, const char *name) {
    struct stat status;
    if (fstatat(directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? -1 : -2;
    return S_ISREG(status.st_mode) ? (int64_t)status.st_size : -2;
}

/* Whether the file of that name has exactly the bytes of an open one. */
static inline int rf_is_same_there(int fd, int directory_fd, const char *name, int64_t size) {
    char ours[32768], theirs[32768];
    struct stat status;
    int there = openat(directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (there < 0) return 0;
    int same = fstat(there, &status) == 0 && S_ISREG(status.st_mode) && (int64_t)status.st_size == size;
    for (int64_t at = 0; same && at < size;) {
        size_t wanted = size - at < (int64_t)sizeof ours ? (size_t)(size - at) : sizeof ours;
        ssize_t come = pread(fd, ours, wanted, (off_t)at);
        if (come < 0 && errno == EINTR) continue;
        /* A short read of a regular file is its end or a disk error; either way they are not the same. */
        same = come > 0 && pread(there, theirs, (size_t)come, (off_t)at) == come && memcmp(ours, theirs, (size_t)come) == 0;
        at += come;
    }
    close(there);
    return same;
}

/* Sets the modification time. Errors are ignored: the time may be invalid, or one that the filesystem cannot store.
 * Returns the time, or -1 if it was not set. */
static inline int64_t rf_set_time(int fd, int64_t seconds) {
    struct timespec times[2] = {{0, UTIME_OMIT}, {(time_t)seconds, 0}};
    return seconds >= 0 && futimens(fd, times) == 0 ? seconds : -1;
}

/* Records with a file of this size where it came from, in the format of rangefetch.disk.provenance; `origin` is the
 * format's version and the URL. `modified_s` is what rf_set_time returned; if it did set the time, that saves a call to
 * fstat. (If a filesystem rounds the time, the record is worthless, like that of a file that was changed.) Does nothing
 * if there can be no such record. */
static inline void rf_keep_origin(int fd, const char *origin, const char *etag, const char *last_modified,
                                  int64_t file_bytes, int64_t modified_s) {
#ifdef __linux__
    char value[4097];
    struct stat status;
    long long modified_ns = (long long)modified_s * 1000000000LL;
    if (modified_s < 0) {
        if (fstat(fd, &status) != 0) return;
        modified_ns = (long long)status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec;
    }
    int size = snprintf(value, sizeof value, "%s\n%s\n%s\n%lld %lld", origin, etag, last_modified,
                        (long long)file_bytes, modified_ns);
    if (size > 0 && size < (int)sizeof value) {
        int ignored = fsetxattr(fd, "user.rangefetch.origin", value, (size_t)size, 0);
        (void)ignored;
    }
#else
    (void)fd, (void)origin, (void)etag, (void)last_modified, (void)file_bytes, (void)modified_s;
#endif
}

/* Closes a file that rf_open_nameless or rf_open_memory has opened. */
static inline void rf_close(int fd) {
    close(fd);
    rf_live_add(RF_LIVE_DESCRIPTORS, -1);
}

/* A descriptor that becomes readable when another thread rings it: an eventfd, or a pipe where there are none. */
typedef struct { rf_socket_t read_fd; rf_socket_t write_fd; } rf_bell;

#define RF_NO_SOCKET (-1)

static inline int rf_bell_open(rf_bell *bell) {
#ifdef __linux__
    bell->read_fd = bell->write_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->read_fd < 0) return errno;
    rf_live_add(RF_LIVE_DESCRIPTORS, 1);
    return 0;
#else
    int ends[2];
    if (pipe(ends) != 0) return errno;
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    bell->read_fd = ends[0];
    bell->write_fd = ends[1];
    rf_live_add(RF_LIVE_DESCRIPTORS, 1);
    return 0;
#endif
}

static inline void rf_bell_ring(rf_bell *bell) {
    uint64_t one = 1;
    ssize_t ignored = write(bell->write_fd, &one, sizeof one);
    (void)ignored; /* if it is full, it already rings */
}

static inline void rf_bell_quiet(rf_bell *bell) {
    char buffer[256];
    while (read(bell->read_fd, buffer, sizeof buffer) == (ssize_t)sizeof buffer) {}
}

static inline void rf_bell_close(rf_bell *bell) {
    if (bell->read_fd >= 0) rf_live_add(RF_LIVE_DESCRIPTORS, -1);
    if (bell->read_fd >= 0) close(bell->read_fd);
    if (bell->write_fd >= 0 && bell->write_fd != bell->read_fd) close(bell->write_fd);
    bell->read_fd = bell->write_fd = -1;
}

/* Starts a thread that no signal interrupts: Python's handlers run in its main thread. Returns 0 or the errno. */
static inline int rf_thread_start(pthread_t *thread, void *(*run)(void *), void *arg) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int failed = pthread_attr_init(&attributes);
    if (failed) return failed;
    failed = pthread_attr_setstacksize(&attributes, RF_STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!failed) failed = pthread_create(thread, &attributes, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

/* Opens a socket for libcurl that child processes do not inherit; -1: see errno. */
static inline rf_socket_t rf_socket(int family, int type, int protocol) {
#ifdef SOCK_CLOEXEC
    return socket(family, type | SOCK_CLOEXEC, protocol);
#else
    int fd = socket(family, type, protocol);
    if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
#endif
}

static inline int rf_close_socket(rf_socket_t fd) { return close(fd); }

/* How many descriptors the process may have open. */
static inline long rf_most_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT32_MAX) return INT32_MAX;
    return (long)limit.rlim_cur;
}

static inline int rf_process_id(void) { return (int)getpid(); }

static inline void rf_thread_name(const char *name) {
#if defined(__linux__)
    extern int pthread_setname_np(pthread_t, const char *);
    pthread_setname_np(pthread_self(), name);
#elif defined(__APPLE__)
    extern int pthread_setname_np(const char *);
    pthread_setname_np(name);
#endif
}

#endif /* not Windows */

static inline int rf_bell_is_open(const rf_bell *bell) { return bell->read_fd != RF_NO_SOCKET; }

/* Writes all of the data, past the page cache if that is wanted and possible. Returns 0 or the errno. */
static inline int rf_pwrite_all(int fd, const char *data, size_t size, int64_t offset, int uncached) {
    while (size > 0) {
        int64_t written = uncached ? rf_pwrite_uncached(fd, data, size, offset) : rf_pwrite(fd, data, size, offset);
        if (written < 0) {
            if (errno == EINTR) continue;
            if (uncached && errno == EOPNOTSUPP) {
                uncached = 0;
                continue;
            }
            return errno;
        }
        if (written == 0) return EIO;
        data += written;
        size -= (size_t)written;
        offset += written;
    }
    return 0;
}

/* Copies the first bytes of a file to another. Returns 0 or the errno. */
static inline int rf_copy(int from, int to, int64_t size) {
    char buffer[32768];
    for (int64_t at = 0; at < size;) {
        size_t wanted = size - at < (int64_t)sizeof buffer ? (size_t)(size - at) : sizeof buffer;
        int64_t come = rf_pread(from, buffer, wanted, at);
        if (come < 0 && errno == EINTR) continue;
        if (come <= 0) return come < 0 ? errno : EIO;
        int failed = rf_pwrite_all(to, buffer, (size_t)come, at, 0);
        if (failed) return failed;
        at += come;
    }
    return 0;
}

/* How much to receive at a time: half of the processor's own level-2 cache, so that the data is still in it when it is
   written, and 1 MiB at most; 512 KiB if the cache's size is unknown or small. libcurl accepts up to 10 MiB. */
static inline long rf_receive_bytes(void) {
    long cache_bytes = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    cache_bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    if (cache_bytes < 1 << 20) return 512 << 10;
    return cache_bytes < 2 << 20 ? cache_bytes / 2 : 1 << 20;
}

/* Whether a host (with its port, unless it is the scheme's default) is this domain or in it. */
static inline int rf_ends_with(const char *host, size_t size, const char *domain) {
    size_t length = strlen(domain);
    const char *port = memchr(host, ']', size);
    port = memchr(port ? port : host, ':', size - (size_t)(port ? port - host : 0));
    if (port) size = (size_t)(port - host);
    if (size >= 2 && host[0] == '[') host += 1, size -= 2;
    if (length == 1 && domain[0] == '*') return 1;
    if (length == 0 || size < length || strncasecmp(host + size - length, domain, length) != 0) return 0;
    return size == length || host[size - length - 1] == '.';
}

#endif
