/* The requests and answers that the simulated libcurl and the simulated servers exchange. */
#ifndef RANGEFETCH_SIMULATOR_SERVERS_H
#define RANGEFETCH_SIMULATOR_SERVERS_H

#include "simulator.h"

enum { MOST_HEADERS = 12 };

enum { END_WELL, END_CLOSE, END_RESET, END_DIES, END_NEVER };

typedef struct {
    int64_t server, resource;
    int ranged;
    int64_t start, end;
} Request;

typedef struct {
    char name[24], value[128];
} Header;

typedef struct {
    int64_t status, resource, version; /* version -1: the body is some text, not part of a file */
    int64_t from;                      /* where in the file the body begins */
    int64_t left;                      /* bytes in the body */
    int64_t excess;                    /* bytes sent after those that do not belong there */
    int64_t stated;                    /* Content-Length; -1: none */
    int chunked, closes, end;
    int64_t retry_after_s, thinks_us, bytes_per_s, slower, hints, flood;
    int64_t ends_after, ends_by;   /* the connection ends after so many bytes (-1: never), and in which way */
    int64_t stalls_after, stalls_us;
    int header_count;
    Header headers[MOST_HEADERS];
} Answer;

void say(Answer *answer, const char *name, const char *format, ...);
void answer_to(const Request *request, const Fault *fault, Answer *answer);
const char *host_name(int64_t server);
int transfers_of(int64_t resource);

#endif
