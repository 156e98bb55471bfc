/* The Windows half of platform.h. It comments on a function only where it differs from the POSIX one.
 *
 * A file descriptor is one of the C runtime's, as in Python. A socket is a handle, not a descriptor. There are no
 * directory descriptors: where POSIX takes a name in a directory, this takes a path. Paths are UTF-8, as in Python.
 * System errors are translated to errno values where they arise.
 */
#ifndef RANGEFETCH_PLATFORM_WINDOWS_H
#define RANGEFETCH_PLATFORM_WINDOWS_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>

#include <io.h>
#include <process.h>

typedef SOCKET rf_socket_t;

static inline int rf_errno_of(DWORD error) {
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND: return ENOENT;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION: return EACCES;
    case ERROR_WRITE_PROTECT: return EROFS;
    case ERROR_INVALID_HANDLE: return EBADF;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY: return ENOMEM;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: return ENOSPC;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS: return EEXIST;
    case ERROR_FILENAME_EXCED_RANGE: return ENAMETOOLONG;
    case ERROR_INVALID_PARAMETER:
    case ERROR_INVALID_NAME: return EINVAL;
    case ERROR_NOT_SUPPORTED: return ENOTSUP;
    case ERROR_FILE_TOO_LARGE: return EFBIG;
    case WSAEMFILE: return EMFILE;
    case WSAENOBUFS: return ENOBUFS;
    case WSAEAFNOSUPPORT: return EAFNOSUPPORT;
    case WSAEACCES: return EACCES;
    default: return EIO;
    }
}

/* ---- threads: a mutex is a slim lock, which needs no clean-up ----------------------------------------------------- */

typedef HANDLE pthread_t;
typedef SRWLOCK pthread_mutex_t;

static inline int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes) {
    (void)attributes;
    InitializeSRWLock(mutex);
    return 0;
}
static inline int pthread_mutex_destroy(pthread_mutex_t *mutex) {
    (void)mutex;
    return 0;
}
static inline int pthread_mutex_lock(pthread_mutex_t *mutex) {
    AcquireSRWLockExclusive(mutex);
    return 0;
}
static inline int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    ReleaseSRWLockExclusive(mutex);
    return 0;
}

typedef struct { void *(*run)(void *); void *arg; } rf_thread_start_arg;

static inline unsigned __stdcall rf_thread_main(void *given) {
    rf_thread_start_arg start = *(rf_thread_start_arg *)given;
    rf_free(given);
    start.run(start.arg);
    return 0;
}

/* Returns 0 or the errno. Windows has no signals that could interrupt the thread. */
static inline int rf_thread_start(pthread_t *thread, void *(*run)(void *), void *arg) {
    rf_thread_start_arg *start = (rf_thread_start_arg *)rf_malloc(sizeof *start); /* the thread's, once it runs */
    if (start == NULL) return ENOMEM;
    *start = (rf_thread_start_arg){run, arg};
    *thread = (HANDLE)_beginthreadex(
        NULL, (unsigned)RF_STACK_BYTES, rf_thread_main, start, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (*thread != NULL) return 0;
    rf_free(start);
    return EAGAIN;
}

static inline int pthread_join(pthread_t thread, void **result) {
    (void)result;
    if (WaitForSingleObject(thread, INFINITE) != WAIT_OBJECT_0) return EINVAL;
    CloseHandle(thread);
    return 0;
}

static inline void rf_thread_name(const char *name) { (void)name; }

static inline int rf_process_id(void) { return (int)GetCurrentProcessId(); }

/* ---- clocks ------------------------------------------------------------------------------------------------------- */

static inline int64_t rf_now_us(void) {
    LARGE_INTEGER per_s, now;
    QueryPerformanceFrequency(&per_s); /* neither call fails since Windows XP */
    QueryPerformanceCounter(&now);
    /* Split in two so that neither part overflows. */
    return now.QuadPart / per_s.QuadPart * 1000000 + now.QuadPart % per_s.QuadPart * 1000000 / per_s.QuadPart;
}

static inline int64_t rf_thread_us(void) {
    FILETIME began, ended, kernel, user;
    if (!GetThreadTimes(GetCurrentThread(), &began, &ended, &kernel, &user)) return 0;
    /* In units of 100 ns, with the high and low halves apart. */
    int64_t kernel_100ns = (int64_t)kernel.dwHighDateTime << 32 | kernel.dwLowDateTime;
    int64_t user_100ns = (int64_t)user.dwHighDateTime << 32 | user.dwLowDateTime;
    return (kernel_100ns + user_100ns) / 10;
}

static inline void rf_sleep_ms(int milliseconds) { Sleep((DWORD)milliseconds); }

/* ---- files -------------------------------------------------------------------------------------------------------- */

static inline HANDLE rf_handle(int fd) { return (HANDLE)_get_osfhandle(fd); }

/* The offset for a read or write. The handles are not opened for overlapped I/O, so calls are complete on return. */
static inline OVERLAPPED rf_at(int64_t offset) {
    OVERLAPPED at = {0};
    at.Offset = (DWORD)(offset & 0xFFFFFFFF);
    at.OffsetHigh = (DWORD)(offset >> 32);
    return at;
}

/* Like pwrite(2) and pread(2). */
static inline int64_t rf_pwrite(int fd, const char *data, size_t size, int64_t offset) {
    OVERLAPPED at = rf_at(offset);
    DWORD written = 0;
    if (WriteFile(rf_handle(fd), data, size < 1 << 30 ? (DWORD)size : 1 << 30, &written, &at)) return written;
    errno = rf_errno_of(GetLastError());
    return -1;
}
static inline int64_t rf_pwrite_uncached(int fd, const char *data, size_t size, int64_t offset) {
    (void)fd, (void)data, (void)size, (void)offset;
    errno = EOPNOTSUPP;
    return -1;
}
static inline int64_t rf_pread(int fd, char *data, size_t size, int64_t offset) {
    OVERLAPPED at = rf_at(offset);
    DWORD come = 0;
    if (ReadFile(rf_handle(fd), data, size < 1 << 30 ? (DWORD)size : 1 << 30, &come, &at)) return come;
    if (GetLastError() == ERROR_HANDLE_EOF) return 0;
    errno = rf_errno_of(GetLastError());
    return -1;
}

static inline int rf_set_length(int fd, int64_t size) {
    FILE_END_OF_FILE_INFO end;
    end.EndOfFile.QuadPart = size;
    if (SetFileInformationByHandle(rf_handle(fd), FileEndOfFileInfo, &end, sizeof end)) return 0;
    return rf_errno_of(GetLastError());
}

/* A file system that cannot reserve space answers that the call is not supported or not known. */
static inline int rf_reserve(int fd, int64_t size) {
    FILE_ALLOCATION_INFO space;
    space.AllocationSize.QuadPart = size;
    if (!SetFileInformationByHandle(rf_handle(fd), FileAllocationInfo, &space, sizeof space)) {
        int failed = rf_errno_of(GetLastError());
        if (failed != ENOTSUP && failed != EINVAL && GetLastError() != ERROR_CALL_NOT_IMPLEMENTED) return failed;
    }
    return rf_set_length(fd, size);
}

static inline void rf_start_writeback(int fd, int64_t offset, int64_t size) { (void)fd, (void)offset, (void)size; }

static inline int rf_punch_hole(int fd, int64_t offset, int64_t size) {
    (void)fd, (void)offset, (void)size;
    return ENOTSUP;
}

static inline int64_t rf_set_time(int fd, int64_t seconds) {
    /* FILETIME counts 100 ns since 1601; nobody means a year beyond 9999. */
    if (seconds < 0 || seconds > INT64_C(253402300799)) return -1;
    int64_t time_100ns = (seconds + INT64_C(11644473600)) * 10000000;
    FILETIME time = {(DWORD)(time_100ns & 0xFFFFFFFF), (DWORD)(time_100ns >> 32)};
    return SetFileTime(rf_handle(fd), NULL, NULL, &time) ? seconds : -1;
}

static inline void rf_keep_origin(int fd, const char *origin, const char *etag, const char *last_modified,
                                  int64_t file_bytes, int64_t modified_s) {
    (void)fd, (void)origin, (void)etag, (void)last_modified, (void)file_bytes, (void)modified_s;
}

static inline void rf_close(int fd) {
    _close(fd);
    rf_live_add(RF_LIVE_DESCRIPTORS, -1);
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

enum { RF_LONGEST_PATH = 32768 }; /* the most that Windows accepts, with the terminating zero */

/* The path in UTF-16, to be freed by rf_free(). NULL: out of memory, too long, or not UTF-8. */
static inline wchar_t *rf_wide(const char *path) {
    int size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *wide = size > 0 && size <= RF_LONGEST_PATH ? (wchar_t *)rf_malloc((size_t)size * sizeof *wide) : NULL;
    if (wide != NULL) MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, size);
    return wide;
}

static inline int rf_rename_free(const char *from, const char *to) {
    wchar_t *old = rf_wide(from), *new = rf_wide(to);
    int failed = EINVAL;
    if (old != NULL && new != NULL) failed = MoveFileExW(old, new, 0) ? 0 : rf_errno_of(GetLastError());
    rf_free(old);
    rf_free(new);
    return failed;
}

/* -1: there is no such file; -2: it is not a regular file, or cannot be examined. */
static inline int64_t rf_size_there(int directory_fd, const char *path) {
    WIN32_FILE_ATTRIBUTE_DATA found;
    wchar_t *wide = rf_wide(path);
    int64_t size = -2;
    (void)directory_fd;
    if (wide == NULL) return size;
    if (!GetFileAttributesExW(wide, GetFileExInfoStandard, &found))
        size = rf_errno_of(GetLastError()) == ENOENT ? -1 : -2;
    else if ((found.dwFileAttributes &
              (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE | FILE_ATTRIBUTE_REPARSE_POINT)) == 0)
        size = (int64_t)found.nFileSizeHigh << 32 | found.nFileSizeLow;
    rf_free(wide);
    return size;
}

static inline int rf_is_there(int directory_fd, const char *path) { return rf_size_there(directory_fd, path) != -1; }

static inline int rf_is_special(int directory_fd, const char *path) { return rf_size_there(directory_fd, path) == -2; }

/* Windows has no files without a name, so a file taken for a small one gets a part file like all others. */
static inline int rf_open_nameless(int directory_fd, int *fd) {
    (void)directory_fd;
    *fd = -1;
    return ENOTSUP;
}
static inline int rf_open_memory(int *fd) {
    *fd = -1;
    return ENOTSUP;
}
static inline int rf_publish_nameless(int fd, int directory_fd, const char *path, int overwrite) {
    (void)fd, (void)directory_fd, (void)path, (void)overwrite;
    return ENOTSUP;
}
static inline int rf_is_same_there(int fd, int directory_fd, const char *path, int64_t size) {
    (void)fd, (void)directory_fd, (void)path, (void)size;
    return 0;
}

/* ---- sockets ------------------------------------------------------------------------------------------------------ */

static inline rf_socket_t rf_socket(int family, int type, int protocol) {
    /* Like Windows' own socket(), except that child processes do not inherit it. */
    SOCKET opened = WSASocketW(family, type, protocol, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (opened == INVALID_SOCKET) errno = rf_errno_of((DWORD)WSAGetLastError());
    return opened;
}

static inline int rf_close_socket(rf_socket_t opened) { return closesocket(opened); }

/* The only limit is memory. */
static inline long rf_most_descriptors(void) { return INT32_MAX; }

/* A UDP socket, because libcurl can wait only for sockets. It is connected to itself, so that nobody else can send to
 * it. If its buffer is full, the datagram is lost, but then the bell already rings. */
typedef struct { rf_socket_t read_fd; rf_socket_t write_fd; } rf_bell;

#define RF_NO_SOCKET INVALID_SOCKET

static inline int rf_bell_open(rf_bell *bell) {
    struct sockaddr_in here = {0};
    int size = sizeof here;
    u_long on = 1;
    int failed = 0;
    SOCKET opened = rf_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    bell->read_fd = bell->write_fd = opened;
    if (opened == INVALID_SOCKET) return errno;
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(opened, (struct sockaddr *)&here, size) != 0 || getsockname(opened, (struct sockaddr *)&here, &size) != 0 ||
        connect(opened, (struct sockaddr *)&here, size) != 0 || ioctlsocket(opened, FIONBIO, &on) != 0)
        failed = rf_errno_of((DWORD)WSAGetLastError());
    if (failed) {
        closesocket(opened);
        bell->read_fd = bell->write_fd = INVALID_SOCKET;
        return failed;
    }
    rf_live_add(RF_LIVE_DESCRIPTORS, 1);
    return 0;
}

static inline void rf_bell_ring(rf_bell *bell) {
    int ignored = send(bell->write_fd, "", 1, 0);
    (void)ignored;
}

static inline void rf_bell_quiet(rf_bell *bell) {
    char buffer[1];
    while (recv(bell->read_fd, buffer, sizeof buffer, 0) > 0) {}
}

static inline void rf_bell_close(rf_bell *bell) {
    if (bell->read_fd == INVALID_SOCKET) return;
    rf_live_add(RF_LIVE_DESCRIPTORS, -1);
    closesocket(bell->read_fd);
    bell->read_fd = bell->write_fd = INVALID_SOCKET;
}

#endif
