/* The part of libcurl's ABI that the engine uses, with the functions in a table that is filled at run time.
 *
 * rangefetch neither includes curl's headers nor links libcurl: it opens the libcurl that it finds at start (usually
 * pycurl's) and looks the functions up. That is sound because libcurl has kept this ABI since 2006 (soname 4;
 * docs/libcurl/ABI.md in curl's sources): numbers are never given a new meaning, structs only grow at their end.
 * tests/engine/test_libcurl.py compares every number below with the loaded library and pycurl.
 */
#ifndef RANGEFETCH_LIBCURL_H
#define RANGEFETCH_LIBCURL_H

#include "platform.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <stdio.h>
#include <string.h>

/* Opaque and distinct types, so that the compiler tells them apart (curl's own headers make both `void`). */
typedef struct rf_easy CURL;
typedef struct rf_multi CURLM;
typedef struct rf_slist curl_slist;
typedef struct rf_url CURLU;
typedef struct rf_share CURLSH;

typedef int CURLcode;
typedef int CURLMcode;
typedef int CURLSHcode;
typedef int CURLSHoption;
typedef int CURLUcode;
typedef int CURLoption;
typedef int CURLMoption;
typedef int CURLINFO;
typedef int64_t curl_off_t;
typedef rf_socket_t curl_socket_t;

typedef size_t (*curl_write_callback)(char *data, size_t size, size_t count, void *arg);
typedef void (*curl_lock_function)(CURL *easy, int data, int access, void *arg);
typedef void (*curl_unlock_function)(CURL *easy, int data, void *arg);
typedef int (*curl_debug_callback)(CURL *easy, int type, char *data, size_t size, void *arg);
struct curl_sockaddr { int family; int socktype; int protocol; unsigned int addrlen; struct sockaddr addr; };
typedef curl_socket_t (*curl_opensocket_callback)(void *arg, int purpose, struct curl_sockaddr *address);
typedef int (*curl_prereq_callback)(void *arg, char *address, char *local, int port, int local_port);
typedef int (*curl_closesocket_callback)(void *arg, curl_socket_t socket);

typedef struct {
    int msg;
    CURL *easy_handle;
    union { void *whatever; CURLcode result; } data;
} CURLMsg;

struct curl_waitfd { curl_socket_t fd; short events; short revents; };

struct curl_header {
    char *name;
    char *value;
    size_t amount;
    size_t index;
    unsigned int origin;
    void *anchor;
};

/* Returned by curl_easy_option_by_name(); the tests check our numbers with it. */
struct curl_easyoption { const char *name; CURLoption id; int type; unsigned int flags; };

/* The start of curl_version_info_data, unchanged since libcurl 7.10. */
typedef struct {
    int age;
    const char *version;
    unsigned int version_num;
    const char *host;
    int features;
    const char *ssl_version;
} curl_version_info_data;

#define RF_CONSTANTS(X)                                                                                       \
    X(CURLOPT_WRITEDATA, 10001) X(CURLOPT_URL, 10002) X(CURLOPT_PROXY, 10004) X(CURLOPT_RANGE, 10007)         \
    X(CURLOPT_ERRORBUFFER, 10010) X(CURLOPT_WRITEFUNCTION, 20011) X(CURLOPT_USERAGENT, 10018)                 \
    X(CURLOPT_HTTPHEADER, 10023) X(CURLOPT_COOKIEFILE, 10031) X(CURLOPT_VERBOSE, 41) X(CURLOPT_NOBODY, 44)     \
    X(CURLOPT_NETRC, 51)                                                                                      \
    X(CURLOPT_FOLLOWLOCATION, 52) X(CURLOPT_SSL_VERIFYPEER, 64) X(CURLOPT_CAINFO, 10065)                      \
    X(CURLOPT_SSL_VERIFYHOST, 81) X(CURLOPT_HTTP_VERSION, 84) X(CURLOPT_DEBUGFUNCTION, 20094)                 \
    X(CURLOPT_DEBUGDATA, 10095) X(CURLOPT_CAPATH, 10097) X(CURLOPT_BUFFERSIZE, 98) X(CURLOPT_NOSIGNAL, 99)     \
    X(CURLOPT_PRIVATE, 10103) X(CURLOPT_NETRC_FILE, 10118) X(CURLOPT_CONNECTTIMEOUT_MS, 156)                  \
    X(CURLOPT_HTTP_CONTENT_DECODING, 158) X(CURLOPT_NOPROXY, 10177) X(CURLOPT_TCP_KEEPALIVE, 213)             \
    X(CURLOPT_PROXY_CAINFO, 10246) X(CURLOPT_SUPPRESS_CONNECT_HEADERS, 265)                                   \
    X(CURLOPT_PROTOCOLS_STR, 10318) X(CURLOPT_IPRESOLVE, 113) X(CURLOPT_INTERFACE, 10062)                     \
    X(CURLOPT_QUICK_EXIT, 322) X(CURLOPT_HEADERFUNCTION, 20079) X(CURLOPT_HEADERDATA, 10029)                  \
    X(CURLOPT_OPENSOCKETFUNCTION, 20163) X(CURLOPT_OPENSOCKETDATA, 10164)                                     \
    X(CURLOPT_PREREQFUNCTION, 20312) X(CURLOPT_PREREQDATA, 10313)                                             \
    X(CURL_PREREQFUNC_OK, 0) X(CURL_PREREQFUNC_ABORT, 1)                                                      \
    X(CURLOPT_CLOSESOCKETFUNCTION, 20208) X(CURLOPT_CLOSESOCKETDATA, 10209)                                  \
    X(CURLOPT_COOKIE, 10022) X(CURLOPT_USERNAME, 10173) X(CURLOPT_PASSWORD, 10174) X(CURLOPT_HTTPAUTH, 107)      \
    X(CURLOPT_SHARE, 10100) X(CURLSHOPT_SHARE, 1) X(CURLSHOPT_LOCKFUNC, 3) X(CURLSHOPT_UNLOCKFUNC, 4)           \
    X(CURLSHOPT_USERDATA, 5) X(CURL_LOCK_DATA_COOKIE, 2) X(CURLAUTH_BASIC, 1) X(CURLAUTH_DIGEST, 2)              \
    X(CURLOPT_FRESH_CONNECT, 74) X(CURLOPT_MAXAGE_CONN, 288)                                                  \
    X(CURLOPT_SSLCERT, 10025) X(CURLOPT_SSLKEY, 10087) X(CURLOPT_PROXY_CAPATH, 10247)                         \
    X(CURLMOPT_PIPELINING, 3) X(CURLMOPT_MAXCONNECTS, 6) X(CURLMOPT_QUICK_EXIT, 21) X(CURLM_OK, 0)             \
    X(CURLMOPT_NETWORK_CHANGED, 17) X(CURLMNWC_CLEAR_CONNS, 2)                                                \
    X(CURLINFO_RESPONSE_CODE, 0x200002) X(CURLINFO_HTTP_CONNECTCODE, 0x200016) X(CURLINFO_OS_ERRNO, 0x200019) X(CURLINFO_NUM_CONNECTS, 0x20001a)     \
    X(CURLINFO_EFFECTIVE_URL, 0x100001) X(CURLINFO_PRIVATE, 0x100015) X(CURLINFO_REDIRECT_URL, 0x10001f) X(CURLINFO_HTTP_VERSION, 0x20002e)       \
    X(CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, 0x60000f) X(CURLINFO_TOTAL_TIME_T, 0x600032)  \
    X(CURLINFO_NAMELOOKUP_TIME_T, 0x600033) X(CURLINFO_CONNECT_TIME_T, 0x600034)                              \
    X(CURLINFO_STARTTRANSFER_TIME_T, 0x600036) X(CURLINFO_APPCONNECT_TIME_T, 0x600038)                        \
    X(CURLINFO_PRETRANSFER_TIME_T, 0x600035) X(CURLINFO_RETRY_AFTER, 0x600039)                         \
    X(CURL_GLOBAL_DEFAULT, 3) X(CURL_HTTP_VERSION_1_1, 2) X(CURL_HTTP_VERSION_2TLS, 4)                        \
    X(CURL_HTTP_VERSION_3, 30) X(CURL_NETRC_OPTIONAL, 1) X(CURL_IPRESOLVE_V4, 1) X(CURL_IPRESOLVE_V6, 2)       \
    X(CURLPIPE_NOTHING, 0) X(CURLPIPE_MULTIPLEX, 2) X(CURL_WRITEFUNC_ERROR, 0xFFFFFFFF) X(CURL_WRITEFUNC_PAUSE, 0x10000001) X(CURLMSG_DONE, 1)    \
    X(CURLH_HEADER, 1) X(CURLINFO_DATA_IN, 3) X(CURLPAUSE_CONT, 0) X(CURL_WAIT_POLLIN, 1) X(CURL_ERROR_SIZE, 256) X(CURLE_OK, 0)                                                 \
    X(CURLE_UNSUPPORTED_PROTOCOL, 1) X(CURLE_FAILED_INIT, 2) X(CURLE_URL_MALFORMAT, 3)                        \
    X(CURLE_COULDNT_RESOLVE_PROXY, 5) X(CURLE_COULDNT_RESOLVE_HOST, 6) X(CURLE_COULDNT_CONNECT, 7)            \
    X(CURLE_WEIRD_SERVER_REPLY, 8) X(CURLE_HTTP2, 16) X(CURLE_PARTIAL_FILE, 18) X(CURLE_WRITE_ERROR, 23)      \
    X(CURLE_OUT_OF_MEMORY, 27) X(CURLE_OPERATION_TIMEDOUT, 28) X(CURLE_SSL_CONNECT_ERROR, 35)                 \
    X(CURLE_INTERFACE_FAILED, 45) X(CURLE_TOO_MANY_REDIRECTS, 47) X(CURLE_GOT_NOTHING, 52)                    \
    X(CURLE_SEND_ERROR, 55) X(CURLE_RECV_ERROR, 56) X(CURLE_SSL_CERTPROBLEM, 58) X(CURLE_SSL_CIPHER, 59)      \
    X(CURLE_PEER_FAILED_VERIFICATION, 60) X(CURLE_BAD_CONTENT_ENCODING, 61) X(CURLE_SSL_CACERT_BADFILE, 77)  \
    X(CURLE_TOO_LARGE, 100) X(CURLE_SSL_SHUTDOWN_FAILED, 80)                                                                          \
    X(CURLE_SSL_CRL_BADFILE, 82) X(CURLE_SSL_ISSUER_ERROR, 83) X(CURLE_SSL_PINNEDPUBKEYNOTMATCH, 90)          \
    X(CURLE_SSL_INVALIDCERTSTATUS, 91) X(CURLE_HTTP2_STREAM, 92) X(CURLE_HTTP3, 95)                           \
    X(CURLE_QUIC_CONNECT_ERROR, 96) X(CURLE_PROXY, 97) X(CURLE_SSL_CLIENTCERT, 98)

#define RF_ENUMERATOR(name, value) name = value,
enum { RF_CONSTANTS(RF_ENUMERATOR) RF_CONSTANTS_END_ };
#undef RF_ENUMERATOR

typedef struct { const char *name; int64_t value; } rf_constant;
#define RF_ROW(name, value) {#name, value},
static const rf_constant rf_constants[] = { RF_CONSTANTS(RF_ROW) {NULL, 0} };
#undef RF_ROW

/* Every function that the engine calls. Variadic ones are declared with `...`, since arm64 macOS passes variadic
 * arguments differently from named ones. */
#define RF_FUNCTIONS(X)                                                                                       \
    X(curl_version_info_data *, curl_version_info, (int age))                                                 \
    X(char *, curl_version, (void))                                                                           \
    X(const char *, curl_easy_strerror, (CURLcode code))                                                      \
    X(CURLcode, curl_global_init, (long flags))                                                               \
    X(curl_slist *, curl_slist_append, (curl_slist *list, const char *text))                                  \
    X(void, curl_slist_free_all, (curl_slist *list))                                                          \
    X(CURL *, curl_easy_init, (void))                                                                         \
    X(void, curl_easy_reset, (CURL *easy))                                                                    \
    X(void, curl_easy_cleanup, (CURL *easy))                                                                  \
    X(CURLcode, curl_easy_setopt, (CURL *easy, CURLoption option, ...))                                       \
    X(CURLcode, curl_easy_getinfo, (CURL *easy, CURLINFO info, ...))                                          \
    X(int, curl_easy_header,                                                                                  \
      (CURL *easy, const char *name, size_t index, unsigned int origin, int request, struct curl_header **))  \
    X(struct curl_header *, curl_easy_nextheader,                                                             \
      (CURL *easy, unsigned int origin, int request, struct curl_header *previous))                           \
    X(CURLcode, curl_easy_pause, (CURL *easy, int mask))                                                      \
    X(const struct curl_easyoption *, curl_easy_option_by_name, (const char *name))                           \
    X(time_t, curl_getdate, (const char *text, const time_t *unused))                                         \
    X(CURLU *, curl_url, (void))                                                                              \
    X(void, curl_url_cleanup, (CURLU *url))                                                                   \
    X(CURLUcode, curl_url_set, (CURLU *url, int part, const char *text, unsigned int flags))                  \
    X(CURLUcode, curl_url_get, (CURLU *url, int part, char **text, unsigned int flags))                       \
    X(void, curl_free, (void *text))                                                                          \
    X(CURLSH *, curl_share_init, (void))                                                                      \
    X(CURLSHcode, curl_share_setopt, (CURLSH *share, CURLSHoption option, ...))                               \
    X(CURLSHcode, curl_share_cleanup, (CURLSH *share))                                                        \
    X(CURLM *, curl_multi_init, (void))                                                                       \
    X(CURLMcode, curl_multi_cleanup, (CURLM *multi))                                                          \
    X(CURLMcode, curl_multi_setopt, (CURLM *multi, CURLMoption option, ...))                                  \
    X(CURLMcode, curl_multi_add_handle, (CURLM *multi, CURL *easy))                                           \
    X(CURLMcode, curl_multi_remove_handle, (CURLM *multi, CURL *easy))                                        \
    X(CURLMcode, curl_multi_perform, (CURLM *multi, int *running))                                            \
    X(CURLMcode, curl_multi_poll,                                                                             \
      (CURLM *multi, struct curl_waitfd *extra, unsigned int count, int timeout_ms, int *ready))              \
    X(CURLMsg *, curl_multi_info_read, (CURLM *multi, int *left))

typedef struct {
#define RF_FIELD(type, name, arguments) type(*name) arguments;
    RF_FUNCTIONS(RF_FIELD)
#undef RF_FIELD
} rf_libcurl;

/* The only table. The extension is one translation unit, so a static in a header exists once. */
static rf_libcurl rf_curl;

/* Opening shared libraries. A handle is never closed, since other code in the process shares the library. */
#ifdef _WIN32
static inline void *rf_library_open(const char *path) {
    wchar_t *wide = rf_wide(path);
    /* Its dependencies are also searched for in its own directory. */
    void *handle = wide != NULL ? (void *)LoadLibraryExW(wide, NULL, LOAD_WITH_ALTERED_SEARCH_PATH) : NULL;
    rf_free(wide);
    return handle;
}
static inline const char *rf_library_error(void) {
    static char text[64]; /* borrowed until the next error; libraries are loaded by one thread, with the GIL */
    snprintf(text, sizeof text, "Windows cannot load it (error %lu)", (unsigned long)GetLastError());
    return text;
}
static inline void *rf_library_symbol(void *handle, const char *name) {
    return (void *)(intptr_t)GetProcAddress((HMODULE)handle, name);
}
/* The file that a symbol comes from, in UTF-8. */
static inline const char *rf_library_path(void *symbol) {
    static char text[3 * 1024];
    wchar_t wide[1024];
    HMODULE module = NULL;
    DWORD flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    if (!GetModuleHandleExW(flags, (LPCWSTR)symbol, &module)) return "";
    DWORD size = GetModuleFileNameW(module, wide, 1024);
    if (size == 0 || size == 1024) return ""; /* an error, or a truncated path */
    return WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, sizeof text, NULL, NULL) > 0 ? text : "";
}
#else
/* A module that is linked with the library works too: dlsym also searches a library's dependencies. */
static inline void *rf_library_open(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
static inline const char *rf_library_error(void) { return dlerror(); }
static inline void *rf_library_symbol(void *handle, const char *name) { return dlsym(handle, name); }
static inline const char *rf_library_path(void *symbol) {
    Dl_info info;
    return dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "";
}
#endif

/* Opens the library and fills the table. Returns NULL, or what is missing. */
static const char *rf_curl_open(const char *path) {
    void *handle = rf_library_open(path);
    if (handle == NULL) return rf_library_error();
    rf_libcurl found;
#define RF_LOOK_UP(type, name, arguments)                         \
    *(void **)&found.name = rf_library_symbol(handle, #name);     \
    if (found.name == NULL) return "it has no function " #name;
    RF_FUNCTIONS(RF_LOOK_UP)
#undef RF_LOOK_UP
    rf_curl = found;
    return NULL;
}

/* The file that the table's functions come from. */
static const char *rf_curl_path(void) { return rf_library_path(*(void **)&rf_curl.curl_easy_init); }

/* From here on libcurl's functions have their usual names. */
#define curl_version_info rf_curl.curl_version_info
#define curl_version rf_curl.curl_version
#define curl_easy_strerror rf_curl.curl_easy_strerror
#define curl_global_init rf_curl.curl_global_init
#define curl_slist_append rf_curl.curl_slist_append
#define curl_slist_free_all rf_curl.curl_slist_free_all
#define curl_easy_init rf_curl.curl_easy_init
#define curl_easy_reset rf_curl.curl_easy_reset
#define curl_easy_cleanup rf_curl.curl_easy_cleanup
#define curl_easy_setopt rf_curl.curl_easy_setopt
#define curl_easy_getinfo rf_curl.curl_easy_getinfo
#define curl_easy_header rf_curl.curl_easy_header
#define curl_easy_nextheader rf_curl.curl_easy_nextheader
#define curl_easy_pause rf_curl.curl_easy_pause
#define curl_easy_option_by_name rf_curl.curl_easy_option_by_name
#define curl_getdate rf_curl.curl_getdate
#define curl_url rf_curl.curl_url
#define curl_url_cleanup rf_curl.curl_url_cleanup
#define curl_url_set rf_curl.curl_url_set
#define curl_url_get rf_curl.curl_url_get
#define curl_free rf_curl.curl_free
#define curl_share_init rf_curl.curl_share_init
#define curl_share_setopt rf_curl.curl_share_setopt
#define curl_share_cleanup rf_curl.curl_share_cleanup
#define curl_multi_init rf_curl.curl_multi_init
#define curl_multi_cleanup rf_curl.curl_multi_cleanup
#define curl_multi_setopt rf_curl.curl_multi_setopt
#define curl_multi_add_handle rf_curl.curl_multi_add_handle
#define curl_multi_remove_handle rf_curl.curl_multi_remove_handle
#define curl_multi_perform rf_curl.curl_multi_perform
#define curl_multi_poll rf_curl.curl_multi_poll
#define curl_multi_info_read rf_curl.curl_multi_info_read

/* The options that the engine sets, each with the type that libcurl reads. Passing an int where it reads a long is
 * undefined behaviour, which the compiler cannot detect in a variadic call. This table also lists what the engine asks
 * of libcurl. */
#define RF_SETOPT(name, option, type) \
    static inline CURLcode name(CURL *easy, type value) { return curl_easy_setopt(easy, option, value); }
RF_SETOPT(opt_url, CURLOPT_URL, const char *)
RF_SETOPT(opt_range, CURLOPT_RANGE, const char *)
RF_SETOPT(opt_headers, CURLOPT_HTTPHEADER, curl_slist *)
RF_SETOPT(opt_on_body, CURLOPT_WRITEFUNCTION, curl_write_callback)
RF_SETOPT(opt_on_body_arg, CURLOPT_WRITEDATA, void *)
RF_SETOPT(opt_on_header, CURLOPT_HEADERFUNCTION, curl_write_callback)
RF_SETOPT(opt_on_header_arg, CURLOPT_HEADERDATA, void *)
RF_SETOPT(opt_on_debug, CURLOPT_DEBUGFUNCTION, curl_debug_callback)
RF_SETOPT(opt_on_debug_arg, CURLOPT_DEBUGDATA, void *)
RF_SETOPT(opt_on_open, CURLOPT_OPENSOCKETFUNCTION, curl_opensocket_callback)
RF_SETOPT(opt_on_open_arg, CURLOPT_OPENSOCKETDATA, void *)
RF_SETOPT(opt_on_request, CURLOPT_PREREQFUNCTION, curl_prereq_callback)
RF_SETOPT(opt_on_request_arg, CURLOPT_PREREQDATA, void *)
RF_SETOPT(opt_on_close, CURLOPT_CLOSESOCKETFUNCTION, curl_closesocket_callback)
RF_SETOPT(opt_on_close_arg, CURLOPT_CLOSESOCKETDATA, void *)
RF_SETOPT(opt_verbose, CURLOPT_VERBOSE, long)
RF_SETOPT(opt_private, CURLOPT_PRIVATE, void *)
RF_SETOPT(opt_error_buffer, CURLOPT_ERRORBUFFER, char *)
RF_SETOPT(opt_protocols, CURLOPT_PROTOCOLS_STR, const char *)
RF_SETOPT(opt_no_signal, CURLOPT_NOSIGNAL, long)
RF_SETOPT(opt_buffer_size, CURLOPT_BUFFERSIZE, long)
RF_SETOPT(opt_follow_location, CURLOPT_FOLLOWLOCATION, long)
RF_SETOPT(opt_content_decoding, CURLOPT_HTTP_CONTENT_DECODING, long)
RF_SETOPT(opt_tcp_keepalive, CURLOPT_TCP_KEEPALIVE, long)
RF_SETOPT(opt_suppress_connect_headers, CURLOPT_SUPPRESS_CONNECT_HEADERS, long)
RF_SETOPT(opt_share, CURLOPT_SHARE, CURLSH *)
RF_SETOPT(opt_cookie, CURLOPT_COOKIE, const char *)
RF_SETOPT(opt_username, CURLOPT_USERNAME, const char *)
RF_SETOPT(opt_password, CURLOPT_PASSWORD, const char *)
RF_SETOPT(opt_http_auth, CURLOPT_HTTPAUTH, long)
RF_SETOPT(opt_quick_exit, CURLOPT_QUICK_EXIT, long)
#undef RF_SETOPT

/* Options that a profile sets, by number. libcurl encodes the type in the number (0-9999: long; from 10000: pointer). */
static inline CURLcode opt_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode opt_text(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLMcode multi_opt_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}

/* Makes a share keep the cookies of its handles, which several threads may use. */
static inline CURLSHcode share_cookies(
    CURLSH *share, curl_lock_function lock, curl_unlock_function unlock, void *arg) {
    CURLSHcode code = curl_share_setopt(share, CURLSHOPT_LOCKFUNC, lock);
    if (code == 0) code = curl_share_setopt(share, CURLSHOPT_UNLOCKFUNC, unlock);
    if (code == 0) code = curl_share_setopt(share, CURLSHOPT_USERDATA, arg);
    if (code == 0) code = curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_COOKIE);
    return code;
}

/* Information that is a long, a 64-bit number or a borrowed string; 0 or NULL if there is none. */
static inline long info_long(CURL *easy, CURLINFO info) {
    long value = 0;
    return curl_easy_getinfo(easy, info, &value) == CURLE_OK ? value : 0;
}
static inline int64_t info_off(CURL *easy, CURLINFO info) {
    curl_off_t value = 0;
    return curl_easy_getinfo(easy, info, &value) == CURLE_OK ? value : 0;
}
static inline const char *info_text(CURL *easy, CURLINFO info) {
    char *value = NULL;
    return curl_easy_getinfo(easy, info, &value) == CURLE_OK ? value : NULL;
}

/* The value of the n-th header (the first has number 0) of that name in the current response; NULL if there is none.
 * It is borrowed, and valid until the handle's next request. */
static inline const char *header_at(CURL *easy, const char *name, size_t number) {
    struct curl_header *header = NULL;
    return curl_easy_header(easy, name, number, CURLH_HEADER, -1, &header) == 0 ? header->value : NULL;
}
static inline const char *header_value(CURL *easy, const char *name) { return header_at(easy, name, 0); }

/* The value of the header of that name; NULL if there is none. Sets `contradicts` if it occurs with different values.
 * Each look-up scans all headers, so a header that occurs once is looked up only once. */
static inline const char *header_said(CURL *easy, const char *name, int *contradicts) {
    struct curl_header *header = NULL;
    *contradicts = 0;
    if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != 0) return NULL;
    const char *first = header->value;
    const size_t amount = header->amount;
    for (size_t number = 1; number < amount && !*contradicts; number++) {
        const char *other = header_at(easy, name, number);
        *contradicts = other == NULL || strcmp(first, other) != 0;
    }
    return first;
}

/* A Location resolved against a URL and encoded as libcurl does it, to be freed by curl_free(); NULL if invalid. */
static inline char *url_joined(const char *base, const char *location) {
    enum { PART_URL = 0, NON_SUPPORT_SCHEME = 1 << 3, URLENCODE = 1 << 7, ALLOW_SPACE = 1 << 11 };
    char *joined = NULL;
    CURLU *url = curl_url();
    if (url == NULL) return NULL;
    if (curl_url_set(url, PART_URL, base, 0) != 0 ||
        curl_url_set(url, PART_URL, location, NON_SUPPORT_SCHEME | URLENCODE | ALLOW_SPACE) != 0 ||
        curl_url_get(url, PART_URL, &joined, 0) != 0)
        joined = NULL;
    curl_url_cleanup(url);
    return joined;
}

#endif
