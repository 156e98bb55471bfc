"""The parts of libcurl.h that Cython code uses.

``nogil`` on the block makes every function pointer below ``noexcept nogil``: a callback that could raise, or that
needs the GIL, does not compile.
"""

from libc.stdint cimport int64_t


cdef extern from "libcurl.h" nogil:
    ctypedef struct CURL:
        pass
    ctypedef struct CURLM:
        pass
    ctypedef struct curl_slist:
        pass
    ctypedef struct CURLSH:
        pass
    ctypedef int CURLcode
    ctypedef int CURLMcode
    ctypedef int CURLoption
    ctypedef int CURLINFO
    ctypedef size_t (*curl_write_callback)(char *data, size_t size, size_t count, void *arg)
    ctypedef void (*curl_lock_function)(CURL *easy, int data, int access, void *arg)
    ctypedef void (*curl_unlock_function)(CURL *easy, int data, void *arg)
    ctypedef int (*curl_debug_callback)(CURL *easy, int kind, char *data, size_t size, void *arg)
    ctypedef struct curl_address "struct sockaddr":
        pass
    cdef struct curl_sockaddr:
        int family
        int socktype
        int protocol
        unsigned int addrlen
        curl_address addr
    ctypedef int (*curl_prereq_callback)(void *arg, char *address, char *local, int port, int local_port)
    ctypedef int curl_socket_t    # a different type on Windows
    ctypedef curl_socket_t (*curl_opensocket_callback)(void *arg, int purpose, curl_sockaddr *address)
    ctypedef int (*curl_closesocket_callback)(void *arg, curl_socket_t socket)
    ctypedef union CURLMsgData "__typeof__(((CURLMsg *)0)->data)":
        CURLcode result
    ctypedef struct CURLMsg:
        int msg
        CURL *easy_handle
        CURLMsgData data
    cdef struct curl_header:
        char *name
        char *value
    cdef struct curl_easyoption:
        CURLoption id
    ctypedef struct curl_version_info_data:
        const char *version
        unsigned int version_num
        const char *ssl_version
    cdef struct curl_waitfd:
        curl_socket_t fd
        short events
        short revents

    enum:
        CURLINFO_RESPONSE_CODE
        CURLINFO_HTTP_CONNECTCODE
        CURLINFO_OS_ERRNO
        CURLINFO_NUM_CONNECTS
        CURLINFO_EFFECTIVE_URL
        CURLINFO_PRIVATE
        CURLINFO_REDIRECT_URL
        CURLINFO_CONTENT_LENGTH_DOWNLOAD_T
        CURLINFO_RETRY_AFTER
        CURLINFO_TOTAL_TIME_T
        CURLINFO_NAMELOOKUP_TIME_T
        CURLINFO_CONNECT_TIME_T
        CURLINFO_APPCONNECT_TIME_T
        CURLINFO_PRETRANSFER_TIME_T
        CURLINFO_STARTTRANSFER_TIME_T
        CURLMOPT_MAXCONNECTS
        CURLMOPT_PIPELINING
        CURLMOPT_QUICK_EXIT
        CURLMOPT_NETWORK_CHANGED
        CURLMNWC_CLEAR_CONNS
        CURLOPT_PROXY
        CURLOPT_INTERFACE
        CURLOPT_FRESH_CONNECT
        CURLOPT_MAXAGE_CONN
        CURLM_OK
        CURLPIPE_NOTHING
        CURLPIPE_MULTIPLEX
        CURL_GLOBAL_DEFAULT
        CURL_ERROR_SIZE
        CURL_PREREQFUNC_OK
        CURL_PREREQFUNC_ABORT
        CURLMSG_DONE
        CURLH_HEADER
        CURLINFO_DATA_IN
        CURLPAUSE_CONT
        CURL_WAIT_POLLIN
        CURLAUTH_BASIC
        CURLAUTH_DIGEST
        CURLE_WRITE_ERROR
        CURLE_OK
        CURLE_OUT_OF_MEMORY
        CURLE_FAILED_INIT
        CURLE_OPERATION_TIMEDOUT
        CURLE_PARTIAL_FILE
        CURLE_RECV_ERROR
        CURLE_TOO_LARGE
    size_t CURL_WRITEFUNC_ERROR
    size_t CURL_WRITEFUNC_PAUSE

    ctypedef struct rf_constant:
        const char *name
        int64_t value
    const rf_constant rf_constants[]

    const char *rf_curl_open(const char *path)
    const char *rf_curl_path()

    curl_version_info_data *curl_version_info(int age)
    char *curl_version()
    const char *curl_easy_strerror(CURLcode code)
    CURLcode curl_global_init(long flags)
    curl_slist *curl_slist_append(curl_slist *list, const char *text)
    void curl_slist_free_all(curl_slist *list)
    CURL *curl_easy_init()
    void curl_easy_reset(CURL *easy)
    void curl_easy_cleanup(CURL *easy)
    curl_header *curl_easy_nextheader(CURL *easy, unsigned int origin, int request, curl_header *previous)
    CURLcode curl_easy_pause(CURL *easy, int mask)
    const curl_easyoption *curl_easy_option_by_name(const char *name)
    int64_t curl_getdate(const char *text, const void *unused)
    CURLSH *curl_share_init()
    int curl_share_cleanup(CURLSH *share)
    int share_cookies(CURLSH *share, curl_lock_function lock, curl_unlock_function unlock, void *arg)
    CURLM *curl_multi_init()
    CURLMcode curl_multi_cleanup(CURLM *multi)
    CURLMcode curl_multi_add_handle(CURLM *multi, CURL *easy)
    CURLMcode curl_multi_remove_handle(CURLM *multi, CURL *easy)
    CURLMcode curl_multi_perform(CURLM *multi, int *running)
    CURLMcode curl_multi_poll(CURLM *multi, curl_waitfd *extra, unsigned int count, int timeout_ms, int *ready)
    CURLMsg *curl_multi_info_read(CURLM *multi, int *left)

    CURLcode opt_url(CURL *easy, const char *value)
    CURLcode opt_range(CURL *easy, const char *value)
    CURLcode opt_headers(CURL *easy, curl_slist *value)
    CURLcode opt_on_body(CURL *easy, curl_write_callback value)
    CURLcode opt_on_body_arg(CURL *easy, void *value)
    CURLcode opt_on_header(CURL *easy, curl_write_callback value)
    CURLcode opt_on_header_arg(CURL *easy, void *value)
    CURLcode opt_on_debug(CURL *easy, curl_debug_callback value)
    CURLcode opt_on_debug_arg(CURL *easy, void *value)
    CURLcode opt_on_open(CURL *easy, curl_opensocket_callback value)
    CURLcode opt_on_open_arg(CURL *easy, void *value)
    CURLcode opt_on_request(CURL *easy, curl_prereq_callback value)
    CURLcode opt_on_request_arg(CURL *easy, void *value)
    CURLcode opt_on_close(CURL *easy, curl_closesocket_callback value)
    CURLcode opt_on_close_arg(CURL *easy, void *value)
    CURLcode opt_verbose(CURL *easy, long value)
    CURLcode opt_private(CURL *easy, void *value)
    CURLcode opt_error_buffer(CURL *easy, char *value)
    CURLcode opt_protocols(CURL *easy, const char *value)
    CURLcode opt_no_signal(CURL *easy, long value)
    CURLcode opt_buffer_size(CURL *easy, long value)
    CURLcode opt_follow_location(CURL *easy, long value)
    CURLcode opt_content_decoding(CURL *easy, long value)
    CURLcode opt_tcp_keepalive(CURL *easy, long value)
    CURLcode opt_suppress_connect_headers(CURL *easy, long value)
    CURLcode opt_share(CURL *easy, CURLSH *value)
    CURLcode opt_cookie(CURL *easy, const char *value)
    CURLcode opt_username(CURL *easy, const char *value)
    CURLcode opt_password(CURL *easy, const char *value)
    CURLcode opt_http_auth(CURL *easy, long value)
    CURLcode opt_quick_exit(CURL *easy, long value)
    CURLcode opt_long(CURL *easy, CURLoption option, long value)
    CURLcode opt_text(CURL *easy, CURLoption option, const char *value)
    CURLMcode multi_opt_long(CURLM *multi, int option, long value)

    long info_long(CURL *easy, CURLINFO info)
    int64_t info_off(CURL *easy, CURLINFO info)
    const char *info_text(CURL *easy, CURLINFO info)
    const char *header_at(CURL *easy, const char *name, size_t number)
    const char *header_value(CURL *easy, const char *name)
    const char *header_said(CURL *easy, const char *name, bint *contradicts)
    char *url_joined(const char *base, const char *location)
    void curl_free(void *text)
