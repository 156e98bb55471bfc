/* The servers: they decide which answer a request gets, and with which body. */
#include "simulator.h"
#include "servers.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Content: one sequence of random bytes; each version of each resource starts at a different position in it --- */

enum { PERIOD = (1 << 20) + 4099 };

static char pattern[PERIOD];

void content_at(int64_t resource, int64_t version, int64_t start, char *data, int64_t size) {
    if (pattern[0] == 0) {
        uint64_t x = 88172645463325252ULL;
        for (int i = 0; i < PERIOD; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            pattern[i] = (char)(x >> 24);
        }
        pattern[0] = 1;
    }
    int64_t at = (start + 1 + resource * 130003 + version * 17011) % PERIOD;
    while (size > 0) {
        int64_t taken = PERIOD - at < size ? PERIOD - at : size;
        memcpy(data, pattern + at, (size_t)taken);
        data += taken;
        size -= taken;
        at = 0;
    }
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

void say(Answer *answer, const char *name, const char *format, ...) {
    va_list list;
    if (answer->header_count == MOST_HEADERS) return;
    Header *header = &answer->headers[answer->header_count++];
    snprintf(header->name, sizeof header->name, "%s", name);
    va_start(list, format);
    vsnprintf(header->value, sizeof header->value, format, list);
    va_end(list);
}

static void say_validators(Answer *answer, const Request *request, const Server *server, const Fault *fault) {
    int64_t version = answer->version;
    if (fault && fault->kind == NO_VALIDATOR) return;
    if (fault && fault->kind == OTHER_VALIDATOR) version += 40 + (int64_t)fault->a;
    if (server->etag == 1) say(answer, "ETag", "\"%lld-%lld\"", (long long)request->resource, (long long)version);
    if (server->etag == 2) say(answer, "ETag", "W/\"%lld-%lld\"", (long long)request->resource, (long long)version);
    if (server->etag == 3)
        say(answer, "ETag", "\"%lld-%lld-%lld\"", (long long)request->server, (long long)request->resource,
            (long long)version);
    if (server->dates) say(answer, "Last-Modified", "Sun, 06 Nov 1994 08:%02lld:37 GMT", (long long)(version % 60));
}

/* Sets how the body ends: by chunks, Content-Length, or the end of the connection. `length` is its true length. */
static void frame(Answer *answer, int64_t length, const Server *server, const Fault *fault) {
    int kind = fault ? (int)fault->kind : 0;
    answer->left = length;
    answer->stated = length;
    /* With a whole file, a client could not notice these. */
    if (answer->status != 206 && (kind == CHUNKS_END_EARLY || kind == EXCESS || kind == SHORT_LENGTH)) kind = 0;
    if (kind == CHUNKED || kind == CHUNKS_END_EARLY || kind == LINGERS || (server->chunked && kind != NO_LENGTH)) {
        answer->chunked = 1;
        answer->stated = -1;
        say(answer, "Transfer-Encoding", "chunked");
        if (kind == CHUNKS_END_EARLY && fault->a < length) answer->left = fault->a;
        if (kind == LINGERS) answer->end = END_NEVER;
        if (kind == EXCESS) answer->excess = fault->a;
        return;
    }
    if (kind == NO_LENGTH) {
        answer->stated = -1;
        answer->end = END_CLOSE;
        return;
    }
    if (kind == EXCESS) {
        answer->excess = fault->a;
        if (fault->b) answer->stated = length + fault->a;
    }
    if (kind == SHORT_LENGTH && length > 0) answer->stated = length - 1 - fault->a % length;
    say(answer, "Content-Length", "%lld", (long long)answer->stated);
}

static void be_an_error(Answer *answer, int64_t status, int64_t retry_after_s, int64_t body_bytes) {
    answer->status = status;
    answer->version = -1;
    answer->left = answer->stated = status == 204 || status == 304 ? 0 : body_bytes;
    if (retry_after_s >= 0) {
        answer->retry_after_s = retry_after_s;
        say(answer, "Retry-After", "%lld", (long long)retry_after_s);
    }
    if (status != 204 && status != 304) say(answer, "Content-Length", "%lld", (long long)body_bytes);
}

static void be_a_part(Answer *answer, const Request *request, const Server *server, const Fault *fault, int64_t size) {
    int kind = fault ? (int)fault->kind : 0;
    int64_t start = request->start;
    int64_t end = request->end < size ? request->end : size;
    int64_t total = size;
    int64_t said_start, said_end;
    if (kind == LESS && end - start > 1) end -= 1 + fault->a % (end - start - 1);
    if (kind == OTHER_START) start = fault->b ? start + fault->a : (start > fault->a ? start - fault->a : 0);
    if (start > end) start = end;
    said_start = start, said_end = end;
    if (kind == OTHER_TOTAL) total += 1 + fault->a;
    if (kind == BEYOND && end < size) said_end = end += 1 + fault->a % (size - end);
    answer->status = 206;
    answer->from = start;
    if (kind != NO_CONTENT_RANGE)
        say(answer, "Content-Range", "bytes %lld-%lld/%lld", (long long)said_start, (long long)said_end - 1,
            (long long)total);
    if (kind == TWO_CONTENT_RANGES)
        say(answer, "Content-Range", "bytes %lld-%lld/%lld", (long long)said_start + 1, (long long)said_end,
            (long long)total);
    say_validators(answer, request, server, fault);
    if (kind == ENCODED) say(answer, "Content-Encoding", "gzip");
    frame(answer, end - start, server, fault);
}

static void be_the_whole(Answer *answer, const Request *request, const Server *server, const Fault *fault, int64_t size) {
    answer->status = 200;
    answer->from = 0;
    say_validators(answer, request, server, fault);
    if (fault && fault->kind == ENCODED) say(answer, "Content-Encoding", "gzip");
    frame(answer, size, server, fault);
    if (!server->states_length && answer->stated >= 0) {
        answer->stated = -1;
        answer->end = END_CLOSE;
        answer->header_count--;
    }
    /* With a body that ends with the connection, a client could not notice that it ends early; a reset is noticed. */
    if (answer->stated < 0 && !answer->chunked && answer->ends_by == END_CLOSE) answer->ends_by = END_RESET;
}

static void spoil(Answer *answer, const Fault *fault) {
    switch (fault->kind) {
    case LATE: answer->thinks_us = fault->a; break;
    case TRUNCATED:
        answer->ends_after = fault->a;
        answer->ends_by = END_CLOSE;
        break;
    case RESET_WITHIN:
        answer->ends_after = fault->a;
        answer->ends_by = END_RESET;
        break;
    case CONNECTION_DIES:
        answer->ends_after = fault->a;
        answer->ends_by = END_DIES;
        break;
    case STALLS:
        answer->stalls_after = fault->a;
        answer->stalls_us = fault->b ? fault->b : NEVER;
        break;
    case DRIPS: answer->bytes_per_s = fault->a; break;
    case SLOW: answer->slower = fault->a; break;
    case EARLY_HINTS: answer->hints = 1 + fault->a % 3; break;
    case HEADER_FLOOD: answer->flood = fault->a; break;
    case HEADERS_CUT: answer->closes = 1; break;
    case CLOSES_AFTER: answer->closes = 1; break;
    default: break;
    }
}

void answer_to(const Request *request, const Fault *fault, Answer *answer) {
    const Server *server = &world.servers[request->server];
    const Resource *resource = &world.resources[request->resource];
    int64_t version = world.version[request->resource];
    int64_t size = resource->sizes[version];
    int kind = fault ? (int)fault->kind : 0;
    memset(answer, 0, offsetof(Answer, headers));
    answer->resource = request->resource;
    answer->version = version;
    answer->ends_after = answer->stalls_after = -1;
    answer->retry_after_s = 0;
    answer->slower = 1;
    answer->closes = server->closes_each;
    if (fault) spoil(answer, fault);
    if (kind == STATUS) {
        be_an_error(answer, fault->a, fault->b, draw_below(3) ? draw_below(2000) : 200000);
    } else if (kind == REDIRECT) {
        answer->status = (int[]){301, 302, 303, 307, 308}[fault->b % 5];
        answer->version = -1;
        answer->left = answer->stated = draw_below(2) ? 0 : draw_below(100000);
        const Server *other = &world.servers[fault->a % world.server_count];
        say(answer, "Location", "%s://%s/%lld", other->secure ? "https" : "http",
            host_name(fault->a % world.server_count), (long long)request->resource);
        say(answer, "Content-Length", "%lld", (long long)answer->stated);
    } else if (request->ranged && server->ranges && kind != WHOLE && size > 0) {
        if (request->start >= size) {
            be_an_error(answer, 416, -1, 100);
            say(answer, "Content-Range", "bytes */%lld", (long long)size);
        } else {
            be_a_part(answer, request, server, fault, size);
        }
    } else if (request->ranged && server->ranges && size == 0 && kind != WHOLE) {
        be_an_error(answer, 416, -1, 0);
        say(answer, "Content-Range", "bytes */0");
    } else {
        be_the_whole(answer, request, server, fault, size);
    }
    if (kind == OTHER_BYTES && answer->version >= 0) answer->version = 90;
    if (answer->closes) say(answer, "Connection", "close");
}
