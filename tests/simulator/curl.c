/* A libcurl without a network: the libcurl functions that the engine calls, with simulated servers and simulated time.
 *
 * It keeps what libcurl promises (libcurl-multi(3), libcurl-errors(3), CURLOPT_WRITEFUNCTION(3), curl_easy_pause(3)) and
 * what the engine relies on:
 *
 *   - callbacks are called only by curl_multi_perform and curl_easy_pause; the close callback also by
 *     curl_multi_remove_handle and curl_multi_cleanup;
 *   - a body arrives in pieces of 1 to 16384 bytes (CURL_MAX_WRITE_SIZE), in a buffer that the next pieces reuse; with
 *     CURLOPT_VERBOSE the debug callback gets everything that was read at once before the write callback gets its first
 *     piece;
 *   - if the write callback returns CURL_WRITEFUNC_PAUSE, libcurl copies the piece and the rest of what was read with
 *     it into memory of its own and delivers both later; if it returns any other number than the piece's size, the
 *     transfer ends with CURLE_WRITE_ERROR;
 *   - never more than Content-Length bytes are delivered;
 *   - curl_easy_getinfo and curl_easy_header report on the last transfer until curl_multi_perform begins the next one;
 *   - a message is valid until its handle is removed;
 *   - a connection becomes idle after a complete answer, and is reused; a transfer that ends earlier closes its
 *     connection, unless that is an HTTP/2 connection;
 *   - the close callback gets the argument that was set in the transfer that opened the socket.
 *
 * Where versions of libcurl differ, World.old_curl chooses: 7.88 does not know CURLMOPT_NETWORK_CHANGED, and loses an
 * error that a callback reports within curl_easy_pause; newer versions close the socket of an aborted transfer some
 * rounds later.
 */
#define _GNU_SOURCE
#include "simulator.h"
#include "servers.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

void the_engine_is_at(void *caller);
void the_system_begins(void);

typedef struct rf_easy CURL;
typedef struct rf_multi CURLM;

enum {
    MAX_WRITE_BYTES = 16384,
    MOST_READS = 10,             /* per transfer and curl_multi_perform */
    SOCKET_BUFFER_BYTES = 1 << 18,
    IDLE_TOO_LONG_US = 118000000, /* CURLOPT_MAXAGE_CONN's default */
    WRITE_PAUSE = 0x10000001,
    MOST_STREAMS = 100
};

enum { OK = 0, UNRESOLVED = 6, UNCONNECTED = 7, WEIRD = 8, HTTP2 = 16, PARTIAL = 18, WRITE_ERROR = 23, MEMORY = 27,
       TIMED_OUT = 28, TLS_FAILED = 35, ABORTED = 42, INTERFACE = 45, NOTHING = 52, RECEIVE = 56, UNTRUSTED = 60, STREAM = 92 };

typedef size_t (*write_callback)(char *, size_t, size_t, void *);
typedef int (*debug_callback)(CURL *, int, char *, size_t, void *);
typedef int (*open_callback)(void *, int, void *);
typedef int (*close_callback)(void *, int);
typedef int (*request_callback)(void *, char *, char *, int, int);

typedef struct Connection {
    struct Connection *next;
    int64_t server;
    int fd;
    int streams;      /* transfers on it */
    int http2;
    int answered;     /* the server serves it; otherwise it waits in the server's queue */
    int64_t number;   /* older connections have smaller ones */
    int died;         /* if not 0, the code that all its transfers end with */
    int closing;      /* if not 0, no longer used, and closed after so many rounds */
    int64_t idle_since_us;
    close_callback on_close;
    void *on_close_arg;
} Connection;

typedef enum { UNSENT, CONNECTING, SENDING, ASKED, HEADED, BODY, OVER } Phase;

struct rf_easy {
    /* Options. */
    char url[256], range[64], interface[32];
    write_callback on_body, on_header;
    debug_callback on_debug;
    open_callback on_open;
    close_callback on_close;
    request_callback on_request;
    void *body_arg, *request_arg, *header_arg, *debug_arg, *open_arg, *close_arg, *private;
    char *words;
    int64_t verbose, buffer_bytes, connect_timeout_ms, max_age_s;
    /* The transfer. */
    CURLM *multi;
    CURL *next;
    Phase phase;
    int64_t due_us; /* when its next step is due */
    Connection *connection;
    int second_address;
    int connect_code;
    Request request;
    Fault *fault;
    Answer answer;
    int64_t body_at;    /* bytes of the body read from the network */
    int64_t taken_bytes; /* ... without those beyond Content-Length */
    int64_t filled_us, waiting_bytes; /* bytes that have arrived and are unread, and when they were last counted */
    int64_t stalled_until_us;
    int paused;
    char *kept;
    int64_t kept_at, kept_size;
    int done, code, told;
    /* Information. */
    char effective_url[256], redirect_url[256];
    int64_t status, os_errno, new_connections, length, retry_after_s;
    int64_t began_us, connected_us, asked_us, first_us, ended_us;
    int header_count;
    Header headers[MOST_HEADERS];
};

typedef struct { int msg; CURL *easy; union { void *whatever; int result; } data; } Message;

struct rf_multi {
    int number; /* of the loop */
    CURL *easies;
    Connection *connections;
    Message message;
    int inside;
};

/* The receive buffer. All loops share it, since only one runs at a time. */
static char buffer[512 << 10];

static int64_t requests_of[MOST_SERVERS], connections_of[MOST_SERVERS];
static char names[MOST_SERVERS][48];
static int64_t worlds;

const char *host_name(int64_t server) { return names[server]; }

/* ---- Python ------------------------------------------------------------------------------------------------------ */

/* The engine's user, in Python. Called when the user has something to do, or when the engine has sent events. Returns
 * when to call it next; -1 ends the world. */
typedef int64_t (*act_callback)(int64_t now_us);
static act_callback act;
static int64_t act_due_us;
static int engine_bell = -1;
static int over = 1;

/* Several loops take turns, each from one curl_multi_poll to its next. The next turn goes to the loop that has to do
 * something first. */
enum { MOST_LOOPS = 8, NOBODY = -1 };
static CURLM *multis[MOST_LOOPS];
typedef struct {
    int fd;           /* its bell */
    int64_t until_us; /* when it wakes if the bell does not ring */
} Waiting;
static Waiting waiting[MOST_LOOPS];
static int loops_made, loops_started, loops_in_all, turn = NOBODY;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER, started = PTHREAD_COND_INITIALIZER;

/* Begins a world that Python has filled in. Its engine is created afterwards. */
void world_begins(act_callback function) {
    world.now_us = BEGINNING_US;
    world.requests = world.connections = world.delivered_bytes = world.polls = world.open_sockets = world.easies = 0;
    world.writes = world.written_bytes = 0;
    world.digest = 14695981039346656037ULL;
    world.broken[0] = 0;
    memset(world.version, 0, sizeof world.version);
    memset(world.fired, 0, sizeof world.fired);
    memset(requests_of, 0, sizeof requests_of);
    memset(connections_of, 0, sizeof connections_of);
    /* New host names, so that nothing the process remembers about hosts of earlier worlds applies. */
    worlds++;
    for (int i = 0; i < MOST_SERVERS; i++) snprintf(names[i], sizeof names[i], "h%d.w%lld.test", i, (long long)worlds);
    the_system_begins();
    act = function;
    act_due_us = 0;
    engine_bell = -1;
    loops_made = loops_started = 0;
    turn = NOBODY;
    over = 0;
}

/* Starts the world: its engine has `loops` loops, and rings `bell` when it has sent events. The loops have been waiting
 * for this in curl_multi_poll; nothing that they did before counts. */
void world_starts(int bell, int loops) {
    pthread_mutex_lock(&lock);
    loops_in_all = loops;
    while (loops_started < loops) pthread_cond_wait(&started, &lock);
    world.now_us = BEGINNING_US + 10;
    the_system_begins();
    world.digest = 14695981039346656037ULL;
    engine_bell = bell;
    turn = 0;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&lock);
}

/* Waits until the world has ended, for at most `seconds` of real time. Returns whether it has ended. */
int world_lasts(int seconds) {
    struct timespec until;
    int result = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&lock);
    while (!over && result == 0) result = pthread_cond_timedwait(&ended, &lock, &until);
    pthread_mutex_unlock(&lock);
    return over;
}

static void end_of_the_world(void) {
    pthread_mutex_lock(&lock);
    over = 1;
    pthread_cond_signal(&ended);
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&lock);
}

int world_is_over(void) { return over; }

static int64_t version_of(int64_t resource) {
    for (int64_t i = 0; i < world.change_count; i++)
        if (world.changes[i].resource == resource && world.changes[i].at_us <= world.now_us - BEGINNING_US)
            world.version[resource] = world.changes[i].version;
    return world.version[resource];
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

static void open_of(Connection **link, Connection *connection) {
    connection->next = *link;
    *link = connection;
}

/* Has the server serve the connection that has waited longest, of any loop, if it can serve one more. */
static void serve_next(int64_t server) {
    int64_t most = world.servers[server].most_served;
    int64_t served = 0;
    Connection *oldest = NULL;
    if (over) return; /* the loops now run at the same time */
    for (int i = 0; i < loops_made; i++)
        for (Connection *each = multis[i]->connections; each; each = each->next)
            if (each->server == server && !each->closing) {
                served += each->answered;
                if (!each->answered && (!oldest || each->number < oldest->number)) oldest = each;
            }
    if (oldest && (most == 0 || served < most)) oldest->answered = 1;
}

static void close_connection(CURLM *multi, Connection *connection) {
    Connection **link = &multi->connections;
    while (*link != connection) link = &(*link)->next;
    *link = connection->next;
    note("close", connection->server, connection->fd >= 0);
    if (connection->fd >= 0) {
        if (connection->on_close) connection->on_close(connection->on_close_arg, connection->fd);
        else close(connection->fd);
    }
    serve_next(connection->server);
    free(connection);
}

/* Detaches the transfer from its connection; `reusable`: the answer is complete. */
static void leave_connection(CURL *easy, int reusable) {
    Connection *connection = easy->connection;
    if (connection == NULL) return;
    easy->connection = NULL;
    connection->streams--;
    if (connection->http2 && !connection->died && easy->phase > CONNECTING) reusable = 1;
    if (connection->died) reusable = 0;
    if (connection->streams > 0) return;
    connection->idle_since_us = world.now_us;
    if (reusable) return;
    if (world.old_curl) close_connection(easy->multi, connection);
    else connection->closing = 1 + (int)draw_below(3);
}

static void close_later(CURLM *multi) {
    for (Connection *each = multi->connections, *next; each; each = next) {
        next = each->next;
        if (each->closing && --each->closing == 0) close_connection(multi, each);
    }
}

static void close_idle(CURLM *multi, int64_t longer_than_us) {
    for (Connection *each = multi->connections, *next; each; each = next) {
        next = each->next;
        if (each->streams == 0 && !each->closing && world.now_us - each->idle_since_us >= longer_than_us)
            close_connection(multi, each);
    }
}

static Connection *idle_connection(CURLM *multi, int64_t server) {
    for (Connection *each = multi->connections, *next; each; each = next) {
        next = each->next;
        if (each->server != server || each->closing || each->died) continue;
        if (each->streams == 0 && world.now_us - each->idle_since_us >= world.servers[server].idle_us) {
            /* The server closed it some time ago, which libcurl notices only now. */
            close_connection(multi, each);
            continue;
        }
        if (each->streams == 0 || (each->http2 == 2 && each->streams < MOST_STREAMS)) return each;
    }
    return NULL;
}

/* ---- Transfers --------------------------------------------------------------------------------------------------- */

static void forget_information(CURL *easy) {
    easy->status = easy->os_errno = easy->new_connections = easy->retry_after_s = 0;
    easy->length = -1;
    easy->began_us = world.now_us;
    easy->connected_us = easy->asked_us = easy->first_us = easy->ended_us = 0;
    easy->redirect_url[0] = 0;
    easy->header_count = 0;
    snprintf(easy->effective_url, sizeof easy->effective_url, "%s", easy->url);
}

static void done(CURL *easy, int code) {
    note("done", easy->request.start, code);
    leave_connection(easy, code == OK && !easy->answer.closes && easy->answer.end != END_CLOSE);
    easy->phase = OVER;
    easy->done = 1;
    easy->code = code;
    easy->due_us = NEVER;
    easy->ended_us = world.now_us;
    free(easy->kept);
    easy->kept = NULL;
    if (easy->words && easy->words[0] == 0 && code != OK) snprintf(easy->words, 256, "simulated: code %d", code);
    if (code == OK && easy->status / 100 == 3)
        for (int i = 0; i < easy->header_count; i++)
            if (strcasecmp(easy->headers[i].name, "Location") == 0)
                snprintf(easy->redirect_url, sizeof easy->redirect_url, "%s", easy->headers[i].value);
}

static int open_socket(CURL *easy, Connection *connection) {
    struct {
        int family, type, protocol;
        unsigned size;
        struct sockaddr_in where;
    } address = {AF_INET, SOCK_STREAM, IPPROTO_TCP, sizeof(struct sockaddr_in), {.sin_family = AF_INET}};
    address.where.sin_port = htons(80);
    address.where.sin_addr.s_addr = htonl(0xc6336407); /* 198.51.100.7 */
    note("open", connection->server, 0);
    connection->on_close = easy->on_close;
    connection->on_close_arg = easy->close_arg;
    connection->fd = easy->on_open ? easy->on_open(easy->open_arg, 0, &address) : -1;
    return connection->fd >= 0;
}

static int server_of(CURL *easy) {
    const char *host = strstr(easy->url, "://");
    if (host == NULL) return 0;
    host += 3;
    for (int i = 0; i < world.server_count; i++) {
        size_t size = strlen(names[i]);
        if (strncmp(host, names[i], size) == 0 && host[size] == '/') {
            easy->request.server = i;
            easy->request.resource = atoi(host + size + 1) % (world.resource_count ? world.resource_count : 1);
            return 1;
        }
    }
    return 0;
}

static void connection_fails(CURL *easy, int code, int error) {
    easy->os_errno = error;
    done(easy, code);
}

static void begin(CURL *easy) {
    CURLM *multi = easy->multi;
    Connection *connection;
    forget_information(easy);
    if (easy->interface[0]) {
        close_idle(multi, easy->max_age_s * 1000000 > 1000000 ? easy->max_age_s * 1000000 : 1000000);
        done(easy, INTERFACE);
        return;
    }
    close_idle(multi, IDLE_TOO_LONG_US);
    if (!server_of(easy)) {
        done(easy, UNRESOLVED);
        return;
    }
    const Server *server = &world.servers[easy->request.server];
    connection = idle_connection(multi, easy->request.server);
    easy->connect_code = easy->second_address = 0;
    if (connection) {
        connection->streams++;
        easy->connection = connection;
        easy->phase = SENDING;
        easy->connected_us = easy->due_us = world.now_us;
        return;
    }
    int64_t number = connections_of[easy->request.server]++;
    Fault *fault = fault_of(NO_SUCH_HOST, BAD_CERTIFICATE, easy->request.server, number);
    world.connections++;
    easy->due_us = world.now_us + server->rtt_us * (server->secure ? 3 : 1);
    if (fault && fault->kind == NO_SUCH_HOST) {
        easy->phase = CONNECTING;
        easy->connect_code = UNRESOLVED;
        return;
    }
    connection = calloc(1, sizeof *connection);
    if (connection == NULL) abort();
    connection->server = easy->request.server;
    connection->number = world.connections;
    connection->streams = 1;
    connection->http2 = (int)server->http2;
    open_of(&multi->connections, connection);
    easy->connection = connection;
    easy->phase = CONNECTING;
    easy->second_address = (int)server->two_addresses;
    if (!open_socket(easy, connection)) {
        connection_fails(easy, UNCONNECTED, 0);
        return;
    }
    easy->new_connections = 1;
    if (fault) {
        if (fault->kind == REFUSED) easy->connect_code = UNCONNECTED, easy->os_errno = ECONNREFUSED;
        if (fault->kind == UNREACHABLE) easy->connect_code = UNCONNECTED, easy->os_errno = ENETUNREACH;
        if (fault->kind == NO_TLS) easy->connect_code = TLS_FAILED;
        if (fault->kind == BAD_CERTIFICATE) easy->connect_code = UNTRUSTED;
        if (fault->kind == HANGS) {
            easy->connect_code = TIMED_OUT;
            easy->due_us = world.now_us + (easy->connect_timeout_ms ? easy->connect_timeout_ms : 300000) * 1000;
        }
    }
}

static void connected(CURL *easy) {
    if (easy->second_address) {
        int first_fails = easy->second_address == 1;
        Connection *connection = easy->connection;
        int fd = connection->fd;
        easy->second_address = 0;
        connection->fd = -1;
        if (!first_fails) {
            /* The first address has not answered yet, so the second is tried as well; then the first answers. */
            if (open_socket(easy, connection) && connection->on_close)
                connection->on_close(connection->on_close_arg, connection->fd);
            connection->fd = fd;
            return;
        }
        /* The first address did not answer. */
        if (!open_socket(easy, connection)) {
            if (connection->on_close) connection->on_close(connection->on_close_arg, fd);
            connection_fails(easy, UNCONNECTED, 0);
            return;
        }
        if (connection->on_close) connection->on_close(connection->on_close_arg, fd);
        easy->due_us = world.now_us + world.servers[easy->request.server].rtt_us;
        return;
    }
    if (easy->connect_code) {
        int64_t error = easy->os_errno;
        connection_fails(easy, easy->connect_code, (int)error);
        return;
    }
    easy->connected_us = world.now_us;
    if (easy->connection->http2) easy->connection->http2 = 2;
    serve_next(easy->request.server);
    easy->phase = SENDING;
    easy->due_us = world.now_us;
}

static void send_request(CURL *easy) {
    const Server *server = &world.servers[easy->request.server];
    if (easy->on_request && easy->on_request(easy->request_arg, (char *)"198.51.100.7", (char *)"10.0.0.1", 80, 40000)) {
        done(easy, ABORTED);
        return;
    }
    easy->asked_us = world.now_us;
    easy->request.ranged = easy->range[0] != 0;
    easy->request.start = easy->request.end = 0;
    if (easy->request.ranged) {
        char *end;
        easy->request.start = strtoll(easy->range, &end, 10);
        easy->request.end = strtoll(end + 1, NULL, 10) + 1;
        if (easy->request.end <= easy->request.start) broken("an empty range was asked for", easy->request.start);
    }
    note("request", easy->request.start, easy->request.end);
    if (easy->verbose && easy->on_debug) easy->on_debug(easy, 2, (char *)"GET", 3, easy->debug_arg);
    easy->phase = ASKED;
    easy->due_us = world.now_us + server->rtt_us / 2;
}

static void answered(CURL *easy) {
    const Server *server = &world.servers[easy->request.server];
    if (!easy->connection->answered) {
        /* It waits until the server closes another connection. */
        easy->due_us = world.now_us + 50000;
        return;
    }
    version_of(easy->request.resource);
    easy->fault = fault_of(SILENT, OTHER_BYTES, easy->request.server, requests_of[easy->request.server]++);
    world.requests++;
    memset(&easy->answer, 0, sizeof easy->answer);
    int kind = easy->fault ? (int)easy->fault->kind : 0;
    int64_t back_us = server->rtt_us - server->rtt_us / 2;
    easy->phase = HEADED;
    if (kind == SILENT) {
        easy->due_us = NEVER;
        return;
    }
    answer_to(&easy->request, easy->fault, &easy->answer);
    easy->due_us = world.now_us + back_us + easy->answer.thinks_us;
}

/* Returns false if the transfer is over. */
static int header_line(CURL *easy, const char *line) {
    size_t size = strlen(line);
    char copy[256];
    memcpy(copy, line, size + 1);
    if (easy->verbose && easy->on_debug) easy->on_debug(easy, 1, copy, size, easy->debug_arg);
    if (easy->on_header && easy->on_header(copy, 1, size, easy->header_arg) != size) {
        done(easy, WRITE_ERROR);
        return 0;
    }
    return 1;
}

/* The length that the headers so far state; -1: none. */
static long long stated_by(CURL *easy) {
    for (int i = 0; i < easy->header_count; i++)
        if (strcasecmp(easy->headers[i].name, "Content-Length") == 0) return atoll(easy->headers[i].value);
    return -1;
}

static void headed(CURL *easy) {
    Answer *answer = &easy->answer;
    char line[256];
    int kind = easy->fault ? (int)easy->fault->kind : 0;
    if (easy->first_us == 0) easy->first_us = world.now_us;
    if (kind == CLOSED || kind == RESET || kind == GARBAGE) {
        if (kind == RESET && easy->connection->http2) easy->connection->died = HTTP2;
        done(easy, kind == CLOSED ? NOTHING : kind == RESET ? RECEIVE : WEIRD);
        return;
    }
    for (int64_t i = 0; i < answer->hints; i++)
        if (!header_line(easy, "HTTP/1.1 103 Early Hints\r\n") || !header_line(easy, "Link: </x>\r\n") ||
            !header_line(easy, "\r\n"))
            return;
    easy->status = answer->status;
    easy->retry_after_s = answer->retry_after_s;
    easy->length = answer->chunked ? -1 : answer->stated;
    snprintf(line, sizeof line, "HTTP/1.1 %lld Simulated\r\n", (long long)answer->status);
    if (!header_line(easy, line)) return;
    for (int64_t i = 0; i < answer->flood; i++)
        if (!header_line(easy, "X-Flood: 1\r\n")) return;
    for (int i = 0; i < answer->header_count; i++) {
        if (kind == HEADERS_CUT && i == easy->fault->a) break;
        easy->headers[easy->header_count++] = answer->headers[i];
        snprintf(line, sizeof line, "%s: %s\r\n", answer->headers[i].name, answer->headers[i].value);
        if (!header_line(easy, line)) return;
    }
    if (kind == HEADERS_CUT) {
        /* HTTP/2 has no such thing: the stream ends without a response. */
        easy->length = stated_by(easy);
        done(easy, easy->connection->http2 ? HTTP2 : easy->length > 0 ? PARTIAL : OK);
        return;
    }
    if (!header_line(easy, "\r\n")) return;
    easy->phase = BODY;
    easy->body_at = easy->taken_bytes = easy->waiting_bytes = 0;
    easy->filled_us = easy->due_us = world.now_us;
    easy->stalled_until_us = 0;
    if (answer->stated == 0 && !answer->chunked) done(easy, OK);
}

/* Passes one piece to the write callback. Returns 0 if it was taken, -1 if the callback paused the transfer, else the
 * code that the transfer ends with. */
static int hand_over(CURL *easy, char *data, int64_t size) {
    size_t taken = easy->on_body(data, 1, (size_t)size, easy->body_arg);
    note("piece", size, (int64_t)taken);
    world.delivered_bytes += taken == (size_t)size ? size : 0;
    if (taken == (size_t)size) return 0;
    if (taken == WRITE_PAUSE) return -1;
    return WRITE_ERROR;
}

static int64_t piece_of(CURL *easy, int64_t left) {
    int64_t most = world.servers[easy->request.server].piece_bytes;
    int64_t size = most >= MAX_WRITE_BYTES ? MAX_WRITE_BYTES : 1 + draw_below(most);
    return size < left ? size : left;
}

static void keep(CURL *easy, const char *data, int64_t size) {
    char *kept = malloc((size_t)size + 1);
    if (kept == NULL) abort();
    memcpy(kept, data, (size_t)size);
    free(easy->kept);
    easy->kept = kept;
    easy->kept_at = 0;
    easy->kept_size = size;
    easy->paused = 1;
    easy->due_us = NEVER;
}

/* Delivers the data that was kept during a pause. Returns false if the callback paused again (`code` is -1) or failed
 * (`code` is positive). */
static int hand_over_kept(CURL *easy, int *code) {
    *code = 0;
    while (easy->kept && easy->kept_at < easy->kept_size) {
        int64_t size = easy->kept_size - easy->kept_at;
        if (size > MAX_WRITE_BYTES) size = MAX_WRITE_BYTES;
        *code = hand_over(easy, easy->kept + easy->kept_at, size);
        if (*code < 0) {
            easy->paused = 1;
            easy->due_us = NEVER;
            return 0;
        }
        if (*code > 0) return 0;
        easy->kept_at += size;
    }
    free(easy->kept);
    easy->kept = NULL;
    return 1;
}

/* How many transfers of a resource are active, in all loops. */
int transfers_of(int64_t resource) {
    int count = 0;
    for (int i = 0; i < loops_made; i++)
        for (CURL *each = multis[i]->easies; each; each = each->next)
            count += each->phase != UNSENT && each->request.resource == resource;
    return count;
}

static int64_t rate_of(CURL *easy) {
    const Server *server = &world.servers[easy->request.server];
    int64_t rate = server->bytes_per_s;
    if (easy->answer.bytes_per_s) return easy->answer.bytes_per_s;
    if (server->total_bytes_per_s) {
        int64_t busy = 0;
        for (int i = 0; i < loops_made; i++)
            for (CURL *each = multis[i]->easies; each; each = each->next)
                busy += each->phase == BODY && each->request.server == easy->request.server;
        if (busy && rate > server->total_bytes_per_s / busy) rate = server->total_bytes_per_s / busy;
    }
    rate /= easy->answer.slower ? easy->answer.slower : 1;
    return rate > 0 ? rate : 1;
}

/* How many bytes of the body the server sends in all, up to the point where it breaks off. */
static int64_t body_bytes(const Answer *answer) {
    int64_t bytes = answer->left + answer->excess;
    if (answer->ends_after >= 0 && answer->ends_after < bytes) bytes = answer->ends_after;
    return bytes;
}

static void fill(CURL *easy) {
    Answer *answer = &easy->answer;
    int64_t rate = rate_of(easy);
    int64_t most = body_bytes(answer) - easy->body_at;
    int64_t since = easy->filled_us > easy->stalled_until_us ? easy->filled_us : easy->stalled_until_us;
    if (answer->stalls_after >= 0 && easy->body_at < answer->stalls_after && most > answer->stalls_after - easy->body_at)
        most = answer->stalls_after - easy->body_at;
    if (world.now_us > since && most > easy->waiting_bytes) {
        int64_t bytes = (int64_t)((double)(world.now_us - since) * (double)rate / 1e6);
        if (bytes > 0) {
            easy->waiting_bytes += bytes;
            easy->filled_us = world.now_us;
        }
    } else {
        easy->filled_us = world.now_us;
    }
    if (easy->waiting_bytes > most) easy->waiting_bytes = most;
    if (easy->waiting_bytes > SOCKET_BUFFER_BYTES) easy->waiting_bytes = SOCKET_BUFFER_BYTES;
}

static void body_ends(CURL *easy) {
    Answer *answer = &easy->answer;
    if (answer->ends_after >= 0 && easy->body_at >= answer->ends_after) {
        if (answer->ends_by == END_DIES && easy->connection->http2) {
            easy->connection->died = HTTP2;
            done(easy, HTTP2);
        } else if (answer->ends_by != END_CLOSE) {
            done(easy, RECEIVE);
        } else {
            easy->answer.closes = 1;
            done(easy, answer->stated >= 0 || answer->chunked ? PARTIAL : OK);
        }
    } else if (answer->end == END_NEVER) {
        easy->due_us = NEVER;
    } else if (answer->stated > easy->body_at && !answer->chunked) {
        /* The server closes the connection before Content-Length bytes. */
        done(easy, PARTIAL);
    } else {
        done(easy, OK);
    }
}

static void receive(CURL *easy) {
    Answer *answer = &easy->answer;
    int64_t burst = world.servers[easy->request.server].burst_bytes;
    int code;
    if (easy->kept && !hand_over_kept(easy, &code)) {
        if (code > 0) done(easy, code);
        return;
    }
    for (int reads = 0; reads < MOST_READS; reads++) {
        int64_t size, wanted;
        fill(easy);
        int64_t left = body_bytes(answer) - easy->body_at;
        if (left <= 0) {
            body_ends(easy);
            return;
        }
        if (answer->stalls_after >= 0 && easy->body_at >= answer->stalls_after) {
            /* It stalls only once. */
            answer->stalls_after = -1;
            easy->stalled_until_us = answer->stalls_us == NEVER ? NEVER : world.now_us + answer->stalls_us;
            easy->due_us = easy->stalled_until_us;
            return;
        }
        if (easy->waiting_bytes == 0 || (easy->waiting_bytes < burst && easy->waiting_bytes < left &&
                                         !(answer->stalls_after > 0 &&
                                           easy->body_at + easy->waiting_bytes >= answer->stalls_after))) {
            int64_t missing = (burst < left ? burst : left) - easy->waiting_bytes;
            if (answer->stalls_after > 0 && missing > answer->stalls_after - easy->body_at - easy->waiting_bytes)
                missing = answer->stalls_after - easy->body_at - easy->waiting_bytes;
            if (missing < 1) missing = 1;
            double wait_us = (double)missing * 1e6 / (double)rate_of(easy) + 1;
            int64_t since = easy->filled_us > easy->stalled_until_us ? easy->filled_us : easy->stalled_until_us;
            easy->due_us = since + (wait_us < 4e15 ? (int64_t)wait_us : (int64_t)4e15);
            if (easy->due_us <= world.now_us) easy->due_us = world.now_us + 1;
            return;
        }
        size = easy->waiting_bytes;
        if (size > easy->buffer_bytes) size = easy->buffer_bytes;
        if (size > (int64_t)sizeof buffer) size = sizeof buffer;
        if (answer->version >= 0)
            content_at(answer->resource, answer->version, answer->from + easy->body_at, buffer, size);
        else
            memset(buffer, 'x', (size_t)size);
        easy->waiting_bytes -= size;
        easy->body_at += size;
        wanted = size;
        if (answer->stated >= 0 && !answer->chunked && wanted > answer->stated - easy->taken_bytes)
            wanted = answer->stated - easy->taken_bytes;
        easy->taken_bytes += wanted;
        if (easy->verbose && easy->on_debug)
            easy->on_debug(easy, 3, buffer, (size_t)(draw_below(2) ? size : wanted), easy->debug_arg);
        for (int64_t at = 0; at < wanted;) {
            int64_t piece = piece_of(easy, wanted - at);
            code = hand_over(easy, buffer + at, piece);
            if (code < 0) {
                keep(easy, buffer + at, wanted - at);
                return;
            }
            if (code > 0) {
                done(easy, code);
                return;
            }
            at += piece;
        }
        if (answer->stated >= 0 && !answer->chunked && easy->taken_bytes == answer->stated) {
            /* The rest is not read; the connection cannot be reused. */
            if (answer->left + answer->excess > answer->stated) answer->closes = 1;
            done(easy, OK);
            return;
        }
    }
    easy->due_us = world.now_us;
}

static void step(CURL *easy) {
    while (easy->phase != OVER) {
        Phase before = easy->phase;
        if (easy->connection && easy->connection->died && easy->phase > CONNECTING && !easy->paused) {
            done(easy, easy->connection->died);
            return;
        }
        if (easy->phase != UNSENT && (easy->paused || easy->due_us > world.now_us)) return;
        switch (easy->phase) {
        case UNSENT: begin(easy); break;
        case CONNECTING: connected(easy); break;
        case SENDING: send_request(easy); break;
        case ASKED: answered(easy); break;
        case HEADED: headed(easy); break;
        case BODY: receive(easy); break;
        case OVER: break;
        }
        if (easy->phase == before) return;
    }
}

/* ---- The multi interface ----------------------------------------------------------------------------------------- */

CURLM *curl_multi_init(void) {
    CURLM *multi = calloc(1, sizeof(CURLM));
    if (multi) multis[multi->number = loops_made++] = multi;
    return multi;
}

int curl_multi_cleanup(CURLM *multi) {
    while (multi->connections) close_connection(multi, multi->connections);
    if (multi->easies) broken("a multi was cleaned up with transfers in it", 0);
    free(multi);
    return 0;
}

int curl_multi_setopt(CURLM *multi, int option, ...) {
    if (option == 17) { /* CURLMOPT_NETWORK_CHANGED */
        if (world.old_curl) return 6;
        close_idle(multi, 0);
    }
    return 0;
}

int curl_multi_add_handle(CURLM *multi, CURL *easy) {
    CURL **link = &multi->easies;
    if (multi->inside) broken("a handle was added within a callback", 0);
    if (easy->multi) broken("a handle was added twice", 0);
    if (system_fault(NO_MEMORY_FOR_TRANSFER)) return 3;
    while (*link) link = &(*link)->next;
    *link = easy;
    easy->next = NULL;
    easy->multi = multi;
    easy->phase = UNSENT;
    easy->due_us = world.now_us;
    easy->paused = easy->done = easy->told = easy->code = 0;
    free(easy->kept);
    easy->kept = NULL;
    if (easy->words) easy->words[0] = 0;
    return 0;
}

int curl_multi_remove_handle(CURLM *multi, CURL *easy) {
    CURL **link = &multi->easies;
    if (multi->inside) broken("a handle was removed within a callback", 0);
    if (easy->multi != multi) return 0;
    while (*link != easy) link = &(*link)->next;
    *link = easy->next;
    note("remove", easy->request.start, easy->phase);
    leave_connection(easy, 0);
    easy->phase = OVER;
    easy->multi = NULL;
    easy->paused = 0;
    free(easy->kept);
    easy->kept = NULL;
    return 0;
}

int curl_multi_perform(CURLM *multi, int *running) {
    *running = 0;
    passes(1 + draw_below(20));
    multi->inside = 1;
    close_later(multi);
    for (CURL *easy = multi->easies; easy; easy = easy->next) {
        step(easy);
        *running += !easy->done;
    }
    multi->inside = 0;
    return 0;
}

Message *curl_multi_info_read(CURLM *multi, int *left) {
    for (CURL *easy = multi->easies; easy; easy = easy->next)
        if (easy->done && !easy->told) {
            easy->told = 1;
            multi->message.msg = 1;
            multi->message.easy = easy;
            multi->message.data.result = easy->code;
            *left = 0;
            return &multi->message;
        }
    *left = 0;
    return NULL;
}

struct waitfd { int fd; short events, revents; };

static int rings(int fd) {
    struct pollfd bell = {fd, POLLIN, 0};
    return fd >= 0 && poll(&bell, 1, 0) > 0;
}

/* Gives the turn to the next loop. Called with the lock held, by the loop that had the turn. The clock advances to the
 * moment when a loop or the engine's user has something to do. */
static void pass_on(void) {
    static int64_t stood_us, stood_turns;
    for (;;) {
        if (world.now_us - stood_us > 1000 || world.now_us < stood_us) stood_us = world.now_us, stood_turns = 0;
        else if (++stood_turns > 100000) broken("the loops turn and time stands still", world.now_us), act_due_us = 0;
        if (rings(engine_bell) || world.now_us >= act_due_us) {
            pthread_mutex_unlock(&lock);
            act_due_us = act(world.now_us);
            if (act_due_us < 0) end_of_the_world();
            pthread_mutex_lock(&lock);
            if (over) return;
        }
        int64_t first_us = act_due_us;
        int first = NOBODY;
        for (int i = 0; i < loops_in_all; i++) {
            int64_t until_us = rings(waiting[i].fd) ? world.now_us : waiting[i].until_us;
            if (until_us < first_us) first_us = until_us, first = i;
        }
        if (first_us > world.now_us) {
            world.now_us = first_us;
            if (world.late_us && draw_below(8) == 0) passes(draw_below(world.late_us));
        }
        if (first == NOBODY) continue;
        turn = first;
        pthread_cond_broadcast(&turned);
        return;
    }
}

int curl_multi_poll(CURLM *multi, struct waitfd *extra, unsigned count, int timeout_ms, int *ready) {
    Waiting *here = &waiting[multi->number];
    if (!over) world.polls++;
    here->fd = extra[0].fd;
    here->until_us = world.now_us + (int64_t)timeout_ms * 1000;
    for (CURL *easy = multi->easies; easy; easy = easy->next) {
        int64_t due_us = easy->phase == UNSENT ? world.now_us : easy->paused || easy->done ? NEVER : easy->due_us;
        if (easy->connection && easy->connection->died && !easy->paused && !easy->done) due_us = world.now_us;
        if (due_us < here->until_us) here->until_us = due_us;
    }
    pthread_mutex_lock(&lock);
    if (turn == multi->number) {
        turn = NOBODY;
        pass_on();
    } else if (engine_bell < 0) {
        loops_started++;
        pthread_cond_signal(&started);
    }
    while (!over && turn != multi->number) pthread_cond_wait(&turned, &lock);
    pthread_mutex_unlock(&lock);
    if (over) {
        /* Only the command to end can still come, and the messages that the loops then send each other. */
        struct pollfd bell = {extra[0].fd, POLLIN, 0};
        poll(&bell, 1, 10000);
        extra[0].revents = bell.revents;
    } else if (rings(extra[0].fd)) {
        extra[0].revents = POLLIN;
    }
    return 0;
}

/* ---- The easy interface ------------------------------------------------------------------------------------------ */

static void defaults(CURL *easy) {
    CURLM *multi = easy->multi;
    size_t options = offsetof(CURL, multi);
    memset(easy, 0, options);
    easy->multi = multi;
    easy->buffer_bytes = 16384;
    easy->max_age_s = 118;
}

CURL *curl_easy_init(void) {
    CURL *easy = calloc(1, sizeof *easy);
    if (easy == NULL) return NULL;
    defaults(easy);
    easy->phase = OVER;
    __atomic_add_fetch(&world.easies, 1, __ATOMIC_RELAXED);
    return easy;
}

void curl_easy_reset(CURL *easy) {
    if (easy->multi) broken("a handle was reset during its transfer", 0);
    defaults(easy);
}

void curl_easy_cleanup(CURL *easy) {
    if (easy->multi) curl_multi_remove_handle(easy->multi, easy);
    __atomic_add_fetch(&world.easies, -1, __ATOMIC_RELAXED);
    free(easy->kept);
    free(easy);
}

static void set_text(char *where, size_t room, const char *value) { snprintf(where, room, "%s", value ? value : ""); }

int curl_easy_setopt(CURL *easy, int option, ...) {
    va_list list;
    long number = 0;
    void *pointer = NULL;
    va_start(list, option);
    if (option < 10000) number = va_arg(list, long);
    else pointer = va_arg(list, void *);
    va_end(list);
    switch (option) {
    case 10002:
        if (!over && system_fault(NO_MEMORY_FOR_OPTION)) return MEMORY;
        set_text(easy->url, sizeof easy->url, pointer);
        break;
    case 10007: set_text(easy->range, sizeof easy->range, pointer); break;
    case 10062: set_text(easy->interface, sizeof easy->interface, pointer); break;
    case 20011: easy->on_body = (write_callback)pointer; break;
    case 10001: easy->body_arg = pointer; break;
    case 20079: easy->on_header = (write_callback)pointer; break;
    case 10029: easy->header_arg = pointer; break;
    case 20094: easy->on_debug = (debug_callback)pointer; break;
    case 10095: easy->debug_arg = pointer; break;
    case 20163: easy->on_open = (open_callback)pointer; break;
    case 10164: easy->open_arg = pointer; break;
    case 20208: easy->on_close = (close_callback)pointer; break;
    case 10209: easy->close_arg = pointer; break;
    case 20312: easy->on_request = (request_callback)pointer; break;
    case 10313: easy->request_arg = pointer; break;
    case 10103: easy->private = pointer; break;
    case 10010: easy->words = pointer; break;
    case 41: easy->verbose = number; break;
    case 98: easy->buffer_bytes = number; break;
    case 156: easy->connect_timeout_ms = number; break;
    case 288: easy->max_age_s = number; break;
    default: break;
    }
    return 0;
}

static int64_t since(CURL *easy, int64_t when_us) { return when_us ? when_us - easy->began_us + 1 : 0; }

int curl_easy_getinfo(CURL *easy, int info, ...) {
    va_list list;
    va_start(list, info);
    void *where = va_arg(list, void *);
    va_end(list);
    switch (info) {
    case 0x200002: *(long *)where = (long)easy->status; break;
    case 0x200019: *(long *)where = (long)easy->os_errno; break;
    case 0x20001a: *(long *)where = (long)easy->new_connections; break;
    case 0x200016: case 0x20002e: *(long *)where = 0; break;
    case 0x100001: *(char **)where = easy->effective_url; break;
    case 0x100015: *(void **)where = easy->private; break;
    case 0x10001f: *(char **)where = easy->redirect_url[0] ? easy->redirect_url : NULL; break;
    case 0x60000f: *(int64_t *)where = easy->length; break;
    case 0x600039: *(int64_t *)where = easy->retry_after_s; break;
    case 0x600032: *(int64_t *)where = since(easy, easy->ended_us ? easy->ended_us : world.now_us); break;
    case 0x600033: *(int64_t *)where = since(easy, easy->connected_us); break;
    case 0x600034: case 0x600038: *(int64_t *)where = since(easy, easy->connected_us); break;
    case 0x600035: *(int64_t *)where = since(easy, easy->asked_us); break;
    case 0x600036: *(int64_t *)where = since(easy, easy->first_us); break;
    default: return 48;
    }
    return 0;
}

int curl_easy_pause(CURL *easy, int mask) {
    int code = 0;
    if (mask != 0 || !easy->multi || easy->done) return 0;
    if (easy->multi->inside) broken("a transfer was set free within a callback", 0);
    easy->paused = 0;
    easy->due_us = world.now_us;
    if (!world.pauses_at_once) return 0;
    easy->multi->inside = 1;
    if (!hand_over_kept(easy, &code) && code > 0) {
        if (world.old_curl) {
            free(easy->kept);
            easy->kept = NULL;
        } else {
            done(easy, code);
        }
    }
    easy->multi->inside = 0;
    return code > 0 ? code : 0;
}

struct header { char *name, *value; size_t amount, index; unsigned origin; void *anchor; };

int curl_easy_header(CURL *easy, const char *name, size_t index, unsigned origin, int request, struct header **found) {
    static __thread struct header header;
    size_t amount = 0;
    for (int i = 0; i < easy->header_count; i++)
        if (strcasecmp(easy->headers[i].name, name) == 0) {
            if (amount == index) header.name = easy->headers[i].name, header.value = easy->headers[i].value;
            amount++;
        }
    if (amount == 0) return 2;
    if (index >= amount) return 1;
    header.amount = amount;
    header.index = index;
    header.origin = 1;
    *found = &header;
    return 0;
}

struct header *curl_easy_nextheader(CURL *easy, unsigned origin, int request, struct header *previous) {
    static __thread struct header header;
    size_t at = previous ? (size_t)((uintptr_t)previous->anchor) : 0;
    if ((int)at >= easy->header_count) return NULL;
    header.name = easy->headers[at].name;
    header.value = easy->headers[at].value;
    header.amount = 1;
    header.index = 0;
    header.origin = 1;
    header.anchor = (void *)(uintptr_t)(at + 1);
    return &header;
}

/* ---- Everything that is not about transfers ---------------------------------------------------------------------- */

struct version_info { int age; const char *version; unsigned number; const char *host; int features; const char *tls; };

struct version_info *curl_version_info(int age) {
    static struct version_info info = {3, "8.16.0", 0x081000, "simulated", 0, "none"};
    the_engine_is_at(__builtin_return_address(0));
    if (getenv("SIMULATED_OLD")) info.version = "7.88.1", info.number = 0x075801;
    return &info;
}

char *curl_version(void) { return (char *)"libcurl, simulated"; }
const char *curl_easy_strerror(int code) { return code == MEMORY ? "Out of memory" : "simulated"; }
int curl_global_init(long flags) { return 0; }

typedef struct slist { char *data; struct slist *next; } slist;

slist *curl_slist_append(slist *list, const char *text) {
    slist *node = calloc(1, sizeof *node), *last = list;
    if (node == NULL || (node->data = strdup(text)) == NULL) abort();
    while (last && last->next) last = last->next;
    if (last) last->next = node;
    return list ? list : node;
}

void curl_slist_free_all(slist *list) {
    while (list) {
        slist *next = list->next;
        free(list->data);
        free(list);
        list = next;
    }
}

const void *curl_easy_option_by_name(const char *name) { return NULL; }
time_t curl_getdate(const char *text, const time_t *unused) { return 784111717; }
void curl_free(void *text) { free(text); }
void *curl_share_init(void) { return calloc(1, 8); }
int curl_share_setopt(void *share, int option, ...) { return 0; }
int curl_share_cleanup(void *share) { return free(share), 0; }

/* URLs. The simulated servers send only absolute ones, so nothing has to be joined. */
typedef struct { char text[256]; } Url;

Url *curl_url(void) { return calloc(1, sizeof(Url)); }
void curl_url_cleanup(Url *url) { free(url); }
int curl_url_set(Url *url, int part, const char *text, unsigned flags) {
    snprintf(url->text, sizeof url->text, "%s", text);
    return 0;
}
int curl_url_get(Url *url, int part, char **text, unsigned flags) {
    *text = strdup(url->text);
    return *text ? 0 : 7;
}
