"""The parts of platform.h that Cython code uses."""

from libc.stdint cimport int64_t


cdef extern from "platform.h" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_join(pthread_t thread, void **result)

    ctypedef int rf_socket_t    # a different type on Windows
    rf_socket_t RF_NO_SOCKET

    ctypedef struct rf_bell:
        rf_socket_t read_fd
        rf_socket_t write_fd
    bint rf_bell_is_open(const rf_bell *bell)
    int rf_bell_open(rf_bell *bell)
    void rf_bell_ring(rf_bell *bell)
    void rf_bell_quiet(rf_bell *bell)
    void rf_bell_close(rf_bell *bell)

    int rf_thread_start(pthread_t *thread, void *(*run)(void *) noexcept nogil, void *arg)
    int rf_process_id()
    rf_socket_t rf_socket(int family, int type, int protocol)
    int rf_close_socket(rf_socket_t fd)
    long rf_most_descriptors()
    bint rf_ends_with(const char *host, size_t size, const char *domain)
    void rf_thread_name(const char *name)
    int64_t rf_now_us()
    int64_t rf_thread_us()
    void rf_sleep_ms(int milliseconds)
    long rf_receive_bytes()
    int rf_pwrite_all(int fd, const char *data, size_t size, int64_t offset, bint uncached)
    int rf_copy(int source, int to, int64_t size)
    int rf_set_length(int fd, int64_t size)
    int rf_reserve(int fd, int64_t size)

    void rf_start_writeback(int fd, int64_t offset, int64_t size)
    int rf_punch_hole(int fd, int64_t offset, int64_t size)
    int rf_rename_free(const char *old_path, const char *new_path)
    int rf_open_nameless(int directory_fd, int *fd)
    int rf_open_memory(int *fd)
    int64_t rf_size_there(int directory_fd, const char *name)
    bint rf_is_same_there(int fd, int directory_fd, const char *name, int64_t size)
    int rf_publish_nameless(int fd, int directory_fd, const char *name, int overwrite)
    bint rf_is_special(int directory_fd, const char *name)
    bint rf_is_there(int directory_fd, const char *name)
    int64_t rf_set_time(int fd, int64_t seconds)
    void rf_keep_origin(
        int fd, const char *origin, const char *etag, const char *last_modified, int64_t file_bytes, int64_t modified_s
    )
    void rf_close(int fd)

    # Generic over the integer that `where` points to.
    void rf_store(void *where, int64_t value)
    int64_t rf_load(const void *where)
    void rf_note(void *where, int64_t value)
    void rf_count(void *where, int64_t value)
    int64_t rf_peek(const void *where)
    int64_t rf_add(void *where, int64_t value)
    bint rf_swap_if(int64_t *where, int64_t expected, int64_t value)
