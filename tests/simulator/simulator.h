/* A simulated world for the engine: a clock, a network with servers, a libcurl that talks to them, and files.
 *
 * One library is used in two ways. Through LD_PRELOAD it answers the engine's system calls (system.c); named by
 * RANGEFETCH_LIBCURL it is the engine's libcurl (curl.c). The engine is the compiled one that ships, and sees no
 * difference. A World filled in by Python (world.py) determines everything that happens, so a run can be repeated
 * exactly.
 *
 * The clock jumps in curl_multi_poll, to the moment when something is due; some other calls advance it a little.
 */
#ifndef RANGEFETCH_SIMULATOR_H
#define RANGEFETCH_SIMULATOR_H

#include <stdint.h>
#include <stddef.h>

enum {
    MOST_SERVERS = 8,
    MOST_FAULTS = 64,
    MOST_CHANGES = 8,
    MOST_RESOURCES = 8,
    MOST_VERSIONS = 4,
    MOST_FILES = 64,
    FIRST_FILE = 1 << 20,     /* descriptors of simulated files start here */
    FIRST_SOCKET = 1 << 21,   /* ... and those of sockets, whose numbers are never reused */
    DIRECTORY = (1 << 20) - 1 /* the descriptor of the only directory */
};

static const int64_t NEVER = INT64_MAX;
static const int64_t BEGINNING_US = 1000000000000; /* the clock's time when a world begins */

/* What goes wrong. Faults of connections count a server's connections, faults of requests its requests, and faults of
 * the system the calls of their kind. world.py says what `a` and `b` mean for each kind. */
enum {
    /* of connections */
    NO_SUCH_HOST = 1,
    REFUSED,
    UNREACHABLE,
    HANGS,
    NO_TLS,
    BAD_CERTIFICATE,
    /* of requests: no valid answer, or a late one */
    SILENT = 20,
    CLOSED,
    RESET,
    GARBAGE,
    LATE,
    /* ... an unexpected answer */
    STATUS,
    REDIRECT,
    WHOLE,
    OTHER_START,
    OTHER_TOTAL,
    NO_CONTENT_RANGE,
    LESS,
    BEYOND,
    TWO_CONTENT_RANGES,
    OTHER_VALIDATOR,
    NO_VALIDATOR,
    ENCODED,
    EARLY_HINTS,
    HEADER_FLOOD,
    HEADERS_CUT,
    /* ... an unexpected body */
    TRUNCATED = 50,
    RESET_WITHIN,
    STALLS,
    DRIPS,
    SLOW,
    CHUNKED,
    CHUNKS_END_EARLY,
    LINGERS,
    EXCESS,
    SHORT_LENGTH,
    NO_LENGTH,
    CLOSES_AFTER,
    CONNECTION_DIES,
    OTHER_BYTES, /* which no client could notice */
    /* of the system */
    NO_SPACE = 80, /* pwrite fails with errno `a` */
    SHORT_WRITE,
    INTERRUPTED,
    NO_FALLOCATE, /* fallocate fails with errno `a` */
    NO_LENGTH_SET,
    NO_NAMELESS, /* O_TMPFILE fails with errno `a` */
    NO_LINK,
    NO_SOCKET,
    NO_MEMORY_FOR_OPTION, /* curl_easy_setopt */
    NO_MEMORY_FOR_TRANSFER /* curl_multi_add_handle */
};

typedef struct {
    int64_t rtt_us;
    int64_t bytes_per_s;   /* of one connection */
    int64_t total_bytes_per_s; /* of all connections together; 0: no limit */
    int64_t burst_bytes;   /* so many bytes arrive at once */
    int64_t piece_bytes;   /* the most that libcurl delivers at once */
    int64_t most_served;   /* connections served at the same time; 0: no limit */
    int64_t idle_us;       /* how long it keeps an idle connection open */
    int64_t secure;
    int64_t http2;
    int64_t ranges;        /* whether it supports them */
    int64_t chunked;
    int64_t states_length; /* whether it sends Content-Length with a whole file */
    int64_t closes_each;
    int64_t etag;          /* 0: none, 1: strong, 2: weak, 3: its own, which no other server has */
    int64_t dates;         /* whether it sends Last-Modified */
    int64_t two_addresses; /* 1: the first does not answer; 2: it answers after the second has been tried as well */
} Server;

typedef struct {
    int64_t kind, server, first, count, a, b;
} Fault;

typedef struct {
    int64_t at_us, resource, version;
} Change;

typedef struct {
    int64_t versions, sizes[MOST_VERSIONS];
} Resource;

typedef struct {
    /* Filled by Python. */
    int64_t seed;
    int64_t old_curl;       /* behave like libcurl 7.88 where versions differ */
    int64_t pauses_at_once; /* curl_easy_pause delivers the data kept during the pause; else curl_multi_perform does */
    int64_t late_us;        /* at most so much later than due a loop wakes */
    int64_t cpu_percent;    /* how much of a processor the loop appears to use */
    int64_t server_count, fault_count, change_count, resource_count;
    Server servers[MOST_SERVERS];
    Fault faults[MOST_FAULTS];
    Change changes[MOST_CHANGES];
    Resource resources[MOST_RESOURCES];
    /* Seen by Python. */
    int64_t now_us;
    int64_t requests, connections, delivered_bytes, polls, open_sockets, easies, writes, written_bytes;
    int64_t version[MOST_RESOURCES];
    int64_t fired[MOST_FAULTS]; /* how often each fault occurred */
    uint64_t digest;            /* of everything that happened, in order */
    char broken[256];           /* the first forbidden thing that the engine did; empty: none */
} World;

extern World world;

uint64_t draw(void);
int64_t draw_below(int64_t bound);
/* Adds an event to the digest; with SIMULATED_TRACE in the environment, also prints it to stderr. */
void note(const char *what, int64_t one, int64_t other);
/* Whether the world has ended. The loops then finish at the same time, nothing more is noted, and the clock stops. */
int world_is_over(void);
void broken(const char *what, int64_t number);
Fault *fault_of(int low, int high, int64_t server, int64_t number);
Fault *system_fault(int kind);
void passes(int64_t us);

/* The content of a version of a resource. */
void content_at(int64_t resource, int64_t version, int64_t start, char *data, int64_t size);

#endif
