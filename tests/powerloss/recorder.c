/* Preloaded into a process: logs what it does to the files in a directory, in order: writes with their data, changes of
 * length, syncs, and names that are created, changed or removed. RECORD_UNDER is the directory, RECORD_TO the log.
 *
 * A record is a line, `what inode offset size name other-name`, separated by tabs; `size` bytes of data follow the line
 * of a write. Only one call runs at a time, so the log has them in the order in which they happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The real system calls, bypassing the functions below. */
#define raw(...) real_syscall()(__VA_ARGS__)

static long (*real_syscall(void))(long, ...) {
    static long (*real)(long, ...);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    return real;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX];
static int log_fd = -1;
static dev_t device;

/* Lets one call run at a time, in all processes: aria2c is a separate one. */
static void enter(void) {
    pthread_mutex_lock(&lock);
    if (log_fd >= 0) flock(log_fd, LOCK_EX);
}

static void leave(void) {
    int error = errno;
    if (log_fd >= 0) flock(log_fd, LOCK_UN);
    pthread_mutex_unlock(&lock);
    errno = error;
}

__attribute__((constructor)) static void begin(void) {
    struct stat status;
    const char *directory = getenv("RECORD_UNDER");
    const char *to = getenv("RECORD_TO");
    if (directory == NULL || to == NULL || realpath(directory, under) == NULL || stat(under, &status) != 0) return;
    device = status.st_dev;
    log_fd = (int)raw(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t size) {
    while (size > 0) {
        long written = raw(SYS_write, log_fd, data, size);
        if (written <= 0) abort();
        data = (const char *)data + written;
        size -= (size_t)written;
    }
}

static void record(const char *what, ino_t inode, int64_t offset, const void *data, int64_t size, const char *name,
                   const char *other) {
    char line[2 * PATH_MAX + 200];
    int length = snprintf(line, sizeof line, "%s\t%llu\t%lld\t%lld\t%s\t%s\n", what, (unsigned long long)inode,
                          (long long)offset, (long long)size, name, other);
    put(line, (size_t)length);
    if (data) put(data, (size_t)size);
}

/* The name of a path in the directory; NULL if it is elsewhere. */
static const char *name_of(int at, const char *path, char *room) {
    char whole[PATH_MAX], link[64], real_directory[PATH_MAX];
    if (log_fd < 0) return NULL;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        ssize_t size;
        if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        size = readlink(link, whole, sizeof whole - 1);
        if (size < 0 || (size_t)size + strlen(path) + 2 > sizeof whole) return NULL;
        whole[size] = '/';
        strcpy(whole + size + 1, path);
    }
    char *slash = strrchr(whole, '/');
    *slash = 0;
    if (realpath(whole[0] ? whole : "/", real_directory) == NULL) return NULL;
    if (strcmp(real_directory, under) != 0) return NULL;
    snprintf(room, NAME_MAX + 1, "%s", slash + 1);
    return room;
}

/* The inode of an open file of that kind (regular, directory) on the directory's file system; 0 for any other. */
static ino_t inode_of(int fd, mode_t kind) {
    struct stat status;
    if (log_fd < 0 || fd == log_fd || fstat(fd, &status) != 0 || status.st_dev != device) return 0;
    return (status.st_mode & S_IFMT) == kind ? status.st_ino : 0;
}

static ino_t inode_at(int at, const char *path) {
    struct stat status;
    return fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_ino : 0;
}

static int opened(int fd, int at, const char *path, int flags, ino_t before) {
    char room[NAME_MAX + 1];
    struct stat status;
    if (fd < 0 || log_fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return fd;
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        /* Its inode number may have been that of a deleted file. */
        record("fresh", status.st_ino, 0, NULL, 0, "", "");
        return fd;
    }
    const char *name = name_of(at, path, room);
    if (name == NULL) return fd;
    if (before == 0 && (flags & O_CREAT)) record("create", status.st_ino, 0, NULL, 0, name, "");
    else if (flags & O_TRUNC) record("length", status.st_ino, 0, NULL, 0, name, "");
    return fd;
}

#define MODE                                          \
    int mode = 0;                                     \
    if (flags & (O_CREAT | O_TMPFILE)) {              \
        va_list list;                                 \
        va_start(list, flags);                        \
        mode = va_arg(list, int);                     \
        va_end(list);                                 \
    }

/* libc writes a stream's data without calling our write(), so we log the whole content when the file is synced. */
enum { MOST_STREAMS = 1024 };
static char is_stream[MOST_STREAMS];

static int do_open(int at, const char *path, int flags, int mode) {
    enter();
    ino_t before = flags & O_CREAT ? inode_at(at, path) : 1;
    int fd = (int)raw(SYS_openat, at, path, flags, mode);
    int error = errno;
    if (fd >= 0 && fd < MOST_STREAMS) is_stream[fd] = 0;
    opened(fd, at, path, flags, before);
    leave();
    errno = error;
    return fd;
}

int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }

FILE *fopen(const char *path, const char *mode) {
    static FILE *(*real)(const char *, const char *);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "fopen");
    enter();
    ino_t before = inode_at(AT_FDCWD, path);
    FILE *file = real(path, mode);
    if (file && fileno(file) < MOST_STREAMS) {
        is_stream[fileno(file)] = mode[0] == 'w';
        if (mode[0] == 'w') opened(fileno(file), AT_FDCWD, path, O_CREAT | O_TRUNC, before);
    }
    leave();
    return file;
}
FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

static void take_down(int fd, ino_t inode) {
    char self[64], data[65536];
    int64_t at = 0;
    ssize_t size;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int again = (int)raw(SYS_openat, AT_FDCWD, self, O_RDONLY | O_CLOEXEC, 0);
    if (again < 0) return;
    while ((size = pread(again, data, sizeof data, at)) > 0) record("write", inode, at, data, size, "", ""), at += size;
    close(again);
}

static ssize_t do_write(int fd, const void *data, size_t size, off_t offset, int positioned) {
    ino_t inode = inode_of(fd, S_IFREG);
    if (inode == 0)
        return positioned ? raw(SYS_pwrite64, fd, data, size, offset) : raw(SYS_write, fd, data, size);
    enter();
    if (!positioned) {
        struct stat status;
        int flags = fcntl(fd, F_GETFL);
        fstat(fd, &status);
        offset = flags & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t written =
        positioned ? raw(SYS_pwrite64, fd, data, size, offset) : raw(SYS_write, fd, data, size);
    int error = errno;
    if (written > 0) record("write", inode, offset, data, written, "", "");
    leave();
    errno = error;
    return written;
}

ssize_t write(int fd, const void *data, size_t size) { return do_write(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return do_write(fd, data, size, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return do_write(fd, data, size, at, 1); }

static int after(int result, const char *what, int fd, int64_t offset) {
    int error = errno;
    ino_t inode = inode_of(fd, S_IFREG);
    if (result == 0 && inode) record(what, inode, offset, NULL, 0, "", "");
    errno = error;
    return result;
}

int ftruncate(int fd, off_t size) {
    enter();
    int result = after((int)raw(SYS_ftruncate, fd, size), "length", fd, size);
    leave();
    return result;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int do_sync(int fd, long number) {
    enter();
    int result = (int)raw(number, fd);
    int error = errno;
    ino_t inode = inode_of(fd, S_IFREG), directory = inode_of(fd, S_IFDIR);
    if (result == 0 && inode && fd < MOST_STREAMS && is_stream[fd]) take_down(fd, inode);
    if (result == 0 && inode) record("sync", inode, 0, NULL, 0, "", "");
    if (result == 0 && directory && directory == inode_at(AT_FDCWD, under)) record("sync names", 0, 0, NULL, 0, "", "");
    leave();
    errno = error;
    return result;
}

int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }

static int named(const char *what, int result, ino_t inode, int from_at, const char *from, int to_at, const char *to) {
    char room[NAME_MAX + 1], other_room[NAME_MAX + 1];
    int error = errno;
    if (result == 0 && log_fd >= 0) {
        const char *name = from ? name_of(from_at, from, room) : NULL;
        const char *other = to ? name_of(to_at, to, other_room) : NULL;
        if (name || other) record(what, inode, 0, NULL, 0, name ? name : "", other ? other : "");
    }
    errno = error;
    return result;
}

static int do_rename(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    enter();
    ino_t inode = inode_at(from_at, from);
    int result = (int)raw(SYS_renameat2, from_at, from, to_at, to, flags);
    named("rename", result, inode, from_at, from, to_at, to);
    leave();
    return result;
}

int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return do_rename(from_at, from, to_at, to, 0);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    enter();
    int result = (int)raw(SYS_linkat, from_at, from, to_at, to, flags);
    named("link", result, inode_at(to_at, to), AT_FDCWD, NULL, to_at, to);
    leave();
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    enter();
    ino_t inode = inode_at(at, path);
    int result = (int)raw(SYS_unlinkat, at, path, flags);
    named("unlink", result, inode, at, path, AT_FDCWD, NULL);
    leave();
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

/* The engine's fallocate and renameat2. */
long syscall(long number, ...) {
    va_list list;
    long a[6], result;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_renameat2)
        return do_rename((int)a[0], (const char *)a[1], (int)a[2], (const char *)a[3], (unsigned)a[4]);
    if (number != SYS_fallocate) return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    struct stat status;
    enter();
    result = raw(number, a[0], a[1], a[2], a[3]);
    int error = errno;
    ino_t inode = result == 0 ? inode_of((int)a[0], S_IFREG) : 0;
    if (inode && (int)a[1] == 0 && fstat((int)a[0], &status) == 0) record("length", inode, status.st_size, NULL, 0, "", "");
    leave();
    errno = error;
    return result;
}
