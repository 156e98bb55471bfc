/* Preloaded into a process under test. Of the calls that touch one directory, the n-th of a kind fails, is cut short,
 * or kills the process. Calls are counted from try_arm() on.
 *
 * A sync that fails loses the data written since the last successful one, as on Linux: those bytes are overwritten. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum call {
    CALL_PWRITE, CALL_WRITE, CALL_FSYNC, CALL_FALLOCATE, CALL_TRUNCATE, CALL_OPEN, CALL_LINK, CALL_RENAME, CALL_UNLINK,
    CALL_TIMES, CALL_MODE, CALL_LOCK, CALL_READ, CALL_MKDIR, CALLS
};
enum how { HOW_ERROR, HOW_SHORT, HOW_DIE_BEFORE, HOW_DIE_AFTER };

static char under[PATH_MAX];
static atomic_int armed_call = -1, armed_how, armed_errno;
static atomic_long left, fired, seen[CALLS];

static struct piece { dev_t device; ino_t inode; off_t offset; size_t size; } *pieces;
static size_t pieces_count, pieces_room;
static pthread_mutex_t pieces_lock = PTHREAD_MUTEX_INITIALIZER;

/* Starts counting, and makes the given call fail; with call -1 it only counts. */
void try_arm(const char *directory, int call, long number, int how, int error) {
    snprintf(under, sizeof under, "%s", directory);
    for (int i = 0; i < CALLS; i++) seen[i] = 0;
    fired = 0;
    armed_how = how;
    armed_errno = error;
    left = number;
    armed_call = call;
}

void try_disarm(void) { armed_call = -1; }
long try_fired(void) { return fired; }
long try_seen(int call) { return seen[call]; }

static int is_under(const char *path) { return under[0] && strncmp(path, under, strlen(under)) == 0; }

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    if (!under[0] || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_under(path);
}

static int names_ours(int directory, const char *path) {
    return path[0] == '/' || directory == AT_FDCWD ? is_under(path) : is_ours(directory);
}

/* Counts the call. Returns whether it is the one to fail. */
static int is_it(enum call call) {
    seen[call]++;
    if (armed_call != (int)call || atomic_fetch_sub(&left, 1) != 1) return 0;
    fired++;
    if (armed_how == HOW_DIE_BEFORE) kill(getpid(), SIGKILL);
    return 1;
}

static int error_at(enum call call, int *dies) {
    *dies = 0;
    if (!is_it(call)) return 0;
    if (armed_how == HOW_DIE_AFTER) { *dies = 1; return 0; }
    return armed_errno;
}

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

#define TRY(call, ours, type, doing) \
    int dies = 0, error = (ours) ? error_at(call, &dies) : 0; \
    if (error) { errno = error; return -1; } \
    type result = (doing); \
    if (dies) kill(getpid(), SIGKILL); \
    return result

static void note(int fd, off_t offset, size_t size) {
    struct stat found;
    if (fstat(fd, &found) != 0) return;
    pthread_mutex_lock(&pieces_lock);
    if (pieces_count == pieces_room) {
        pieces_room = pieces_room ? 2 * pieces_room : 256;
        pieces = realloc(pieces, pieces_room * sizeof *pieces);
    }
    pieces[pieces_count++] = (struct piece){found.st_dev, found.st_ino, offset, size};
    pthread_mutex_unlock(&pieces_lock);
}

static void settle(int fd, int lose) {
    struct stat found;
    static const char rubbish[4096] = {[0 ... 4095] = (char)0xee};
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) return;
    pthread_mutex_lock(&pieces_lock);
    size_t kept = 0;
    for (size_t i = 0; i < pieces_count; i++) {
        if (pieces[i].device != found.st_dev || pieces[i].inode != found.st_ino) {
            pieces[kept++] = pieces[i];
            continue;
        }
        for (size_t at = 0; lose && at < pieces[i].size; at += sizeof rubbish) {
            size_t size = pieces[i].size - at < sizeof rubbish ? pieces[i].size - at : sizeof rubbish;
            if (REAL(pwrite64)(fd, rubbish, size, pieces[i].offset + (off_t)at) < 0) break;
        }
    }
    pieces_count = kept;
    pthread_mutex_unlock(&pieces_lock);
}

static ssize_t write_at(int fd, const void *data, size_t size, off64_t offset) {
    if (!is_ours(fd)) return REAL(pwrite64)(fd, data, size, offset);
    int dies, error = error_at(CALL_PWRITE, &dies);
    if (error && armed_how == HOW_SHORT && size > 1) size /= 2;
    else if (error) { errno = error; return -1; }
    ssize_t result = REAL(pwrite64)(fd, data, size, offset);
    if (result > 0) note(fd, offset, (size_t)result);
    if (dies) kill(getpid(), SIGKILL);
    return result;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return write_at(fd, data, size, offset); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    if (!is_ours(fd)) return REAL(write)(fd, data, size);
    int dies, error = error_at(CALL_WRITE, &dies);
    if (error && armed_how == HOW_SHORT && size > 1) size /= 2;
    else if (error) { errno = error; return -1; }
    ssize_t result = REAL(write)(fd, data, size);
    if (dies) kill(getpid(), SIGKILL);
    return result;
}

static int sync_fd(int fd, int (*sync)(int)) {
    if (!is_ours(fd)) return sync(fd);
    int dies, error = error_at(CALL_FSYNC, &dies);
    settle(fd, error != 0);
    if (error) { errno = error; return -1; }
    int result = sync(fd);
    if (dies) kill(getpid(), SIGKILL);
    return result;
}
int fsync(int fd) { return sync_fd(fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_fd(fd, REAL(fdatasync)); }

/* The engine calls fallocate(2) and renameat2(2) through this. */
long syscall(long number, ...) {
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    enum call call = number == SYS_renameat2 ? CALL_RENAME : CALL_FALLOCATE;
    int ours = (number == SYS_fallocate && is_ours((int)a[0])) ||
               (number == SYS_renameat2 && names_ours((int)a[2], (const char *)a[3]));
    TRY(call, ours, long, REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
    TRY(CALL_READ, is_ours(fd), ssize_t, REAL(pread64)(fd, data, size, offset));
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) { return pread64(fd, data, size, offset); }
ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset) {
    TRY(CALL_READ, is_ours(fd), ssize_t, REAL(preadv64)(fd, parts, count, offset));
}
ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    TRY(CALL_READ, is_ours(fd), ssize_t, REAL(preadv64v2)(fd, parts, count, offset, flags));
}
int mkdir(const char *path, mode_t mode) { TRY(CALL_MKDIR, names_ours(AT_FDCWD, path), int, REAL(mkdir)(path, mode)); }
int mkdirat(int directory, const char *path, mode_t mode) {
    TRY(CALL_MKDIR, names_ours(directory, path), int, REAL(mkdirat)(directory, path, mode));
}
int ftruncate64(int fd, off64_t size) { TRY(CALL_TRUNCATE, is_ours(fd), int, REAL(ftruncate64)(fd, size)); }
int ftruncate(int fd, off_t size) { TRY(CALL_TRUNCATE, is_ours(fd), int, REAL(ftruncate)(fd, size)); }
int flock(int fd, int what) { TRY(CALL_LOCK, is_ours(fd), int, REAL(flock)(fd, what)); }
int fchmod(int fd, mode_t mode) { TRY(CALL_MODE, is_ours(fd), int, REAL(fchmod)(fd, mode)); }
int futimens(int fd, const struct timespec times[2]) { TRY(CALL_TIMES, is_ours(fd), int, REAL(futimens)(fd, times)); }
int utimensat(int fd, const char *path, const struct timespec times[2], int flags) {
    TRY(CALL_TIMES, names_ours(fd, path), int, REAL(utimensat)(fd, path, times, flags));
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = mode_of(flags, rest); va_end(rest); \
        TRY(CALL_OPEN, names_ours(AT_FDCWD, path), int, REAL(name)(path, flags, mode)); \
    }
#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = mode_of(flags, rest); va_end(rest); \
        TRY(CALL_OPEN, names_ours(directory, path), int, REAL(name)(directory, path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int link(const char *from, const char *to) { TRY(CALL_LINK, names_ours(AT_FDCWD, to), int, REAL(link)(from, to)); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    TRY(CALL_LINK, names_ours(b, to), int, REAL(linkat)(a, from, b, to, flags));
}
int rename(const char *from, const char *to) { TRY(CALL_RENAME, names_ours(AT_FDCWD, to), int, REAL(rename)(from, to)); }
int renameat(int a, const char *from, int b, const char *to) {
    TRY(CALL_RENAME, names_ours(b, to), int, REAL(renameat)(a, from, b, to));
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    TRY(CALL_RENAME, names_ours(b, to), int, REAL(renameat2)(a, from, b, to, flags));
}
int unlink(const char *path) { TRY(CALL_UNLINK, names_ours(AT_FDCWD, path), int, REAL(unlink)(path)); }
int unlinkat(int directory, const char *path, int flags) {
    TRY(CALL_UNLINK, names_ours(directory, path), int, REAL(unlinkat)(directory, path, flags));
}
