/* The machine's limit, to measure the downloaders against: one thread, poll(2), no HTTP library, no checks beyond
 * status and length, no resume.
 *
 *     rawsockets recv|splice ADDRESS PORT PATH SIZE FILE CONNECTIONS     one file, in ranges, into a preallocated file
 *     rawsockets files ADDRESS PORT LIST DIRECTORY CONNECTIONS           many files; LIST has one path per line
 *
 * recv: recv into one buffer, pwrite from it. splice (Linux): from socket to pipe to file; the data never enters the
 * process.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* BUFFER_SIZE was the fastest size between 32 KiB and 1 MiB on loopback. */
enum { HEAD_SIZE = 8192, BUFFER_SIZE = 256 << 10, PIPE_SIZE = 1 << 20 };
static const long long SMALLEST_RANGE = 1 << 20, LARGEST_RANGE = 16 << 20;

struct connection {
    int socket, file, pipe[2];
    int in_head;            /* the response's headers are not complete yet */
    int filled;             /* bytes in head[] */
    long long offset, left; /* where the next body byte goes; how many are still missing */
    char head[HEAD_SIZE + 1];
};

static struct sockaddr_in server;
static const char *host, *path, *directory;
static int use_splice, many, shared_file = -1;
static long long size, next_start, range_size; /* one file */
static char **paths;                           /* many files */
static int path_count, next_path;
static char buffer[BUFFER_SIZE];

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void need(int right, const char *what)
{
    if (!right)
        fail("%s: %s", what, strerror(errno));
}

static void write_all(int file, const char *bytes, long long count, long long offset)
{
    while (count > 0) {
        ssize_t written = pwrite(file, bytes, count, offset);
        need(written > 0, "pwrite");
        bytes += written, count -= written, offset += written;
    }
}

static void open_connection(struct connection *c)
{
    int on = 1;
    c->socket = socket(AF_INET, SOCK_STREAM, 0);
    need(c->socket >= 0, "socket");
    need(connect(c->socket, (struct sockaddr *)&server, sizeof server) == 0, "connect");
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Requests the next range or file on this connection. Returns 0 if there is nothing left to request. */
static int ask(struct connection *c)
{
    char request[HEAD_SIZE], range[80] = "";
    const char *target = path;
    int length;
    if (many) {
        if (next_path == path_count)
            return 0;
        target = paths[next_path++];
        const char *name = strrchr(target, '/');
        snprintf(request, sizeof request, "%s/%s", directory, name ? name + 1 : target);
        c->file = open(request, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        need(c->file >= 0, request);
        c->offset = 0;
    } else {
        if (next_start == size)
            return 0;
        long long end = next_start + range_size < size ? next_start + range_size : size;
        snprintf(range, sizeof range, "Range: bytes=%lld-%lld\r\n", next_start, end - 1);
        c->file = shared_file;
        c->offset = next_start;
        c->left = end - next_start;
        next_start = end;
    }
    length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", target, host, range);
    need(send(c->socket, request, length, 0) == length, "send");
    c->in_head = 1;
    c->filled = 0;
    return 1;
}

/* Reads the headers that have arrived. Once they are complete, writes the body bytes that came with them. */
static void read_head(struct connection *c)
{
    ssize_t got = recv(c->socket, c->head + c->filled, HEAD_SIZE - c->filled, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    need(got >= 0, "recv");
    if (got == 0)
        fail("the server closed the connection before its answer was complete");
    c->filled += got;
    c->head[c->filled] = 0;
    char *body = strstr(c->head, "\r\n\r\n");
    if (!body) {
        if (c->filled == HEAD_SIZE)
            fail("the answer's head is too long");
        return;
    }
    body += 4;
    if (strncmp(c->head, many ? "HTTP/1.1 200 " : "HTTP/1.1 206 ", 13) != 0)
        fail("unexpected answer: %.*s", (int)strcspn(c->head, "\r"), c->head);
    long long length = -1;
    for (char *line = c->head; line < body - 2; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = atoll(line + 15);
    if (length < 0 || (!many && length != c->left))
        fail("unexpected Content-Length: %lld", length);
    long long came = c->head + c->filled - body;
    if (came > length)
        fail("more body than announced");
    write_all(c->file, body, came, c->offset);
    c->in_head = 0;
    c->offset += came;
    c->left = length - came;
}

static void read_body(struct connection *c)
{
    ssize_t got;
    if (use_splice) {
#ifdef __linux__
        size_t most = c->left < PIPE_SIZE ? c->left : PIPE_SIZE;
        got = splice(c->socket, NULL, c->pipe[1], NULL, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        for (ssize_t waiting = got; waiting > 0;) {
            loff_t offset = c->offset;
            ssize_t moved = splice(c->pipe[0], NULL, c->file, &offset, waiting, SPLICE_F_MOVE);
            need(moved > 0, "splice to the file");
            waiting -= moved, c->offset += moved, c->left -= moved;
        }
#else
        fail("splice is Linux's");
        return;
#endif
    } else {
        got = recv(c->socket, buffer, c->left < BUFFER_SIZE ? c->left : BUFFER_SIZE, MSG_DONTWAIT);
        if (got > 0) {
            write_all(c->file, buffer, got, c->offset);
            c->offset += got, c->left -= got;
        }
    }
    if (got == 0)
        fail("the server closed the connection in the middle of a body");
    need(got > 0 || errno == EAGAIN || errno == EINTR, "receive");
}

static void read_list(const char *name)
{
    FILE *list = fopen(name, "r");
    char line[HEAD_SIZE / 2];
    need(list != NULL, name);
    while (fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        if (path_count % 1024 == 0)
            need((paths = realloc(paths, (path_count + 1024) * sizeof *paths)) != NULL, "realloc");
        need((paths[path_count++] = strdup(line)) != NULL, "strdup");
    }
    fclose(list);
}

static void open_file(const char *name)
{
    shared_file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    need(shared_file >= 0, name);
#ifdef __linux__
    if (fallocate(shared_file, 0, 0, size) == 0)
        return;
#endif
    need(ftruncate(shared_file, size) == 0, "ftruncate");
}

int main(int count, char **words)
{
    many = count == 7 && strcmp(words[1], "files") == 0;
    use_splice = count == 8 && strcmp(words[1], "splice") == 0;
    if (!many && !use_splice && !(count == 8 && strcmp(words[1], "recv") == 0))
        fail("usage: rawsockets recv|splice ADDRESS PORT PATH SIZE FILE CONNECTIONS\n"
             "       rawsockets files ADDRESS PORT LIST DIRECTORY CONNECTIONS");
    host = words[2];
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(words[3]));
    if (inet_pton(AF_INET, host, &server.sin_addr) != 1)
        fail("%s is not an IPv4 address", host);
    int connections = atoi(words[count - 1]);
    if (connections < 1)
        fail("at least one connection");
    if (many) {
        read_list(words[4]);
        directory = words[5];
    } else {
        path = words[4];
        size = atoll(words[5]);
        range_size = (size + connections - 1) / connections;
        range_size = range_size > LARGEST_RANGE ? LARGEST_RANGE : range_size;
        range_size = range_size < SMALLEST_RANGE ? SMALLEST_RANGE : range_size;
        open_file(words[6]);
    }

    struct connection *all = calloc(connections, sizeof *all);
    struct pollfd *waits = calloc(connections, sizeof *waits);
    need(all != NULL && waits != NULL, "calloc");
    int live = 0;
    for (int i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        waits[i].fd = -1; /* poll ignores it */
        if (many ? next_path == path_count : next_start == size)
            continue;
        open_connection(c);
#ifdef __linux__
        if (use_splice) {
            need(pipe2(c->pipe, O_CLOEXEC) == 0, "pipe");
            fcntl(c->pipe[1], F_SETPIPE_SZ, PIPE_SIZE);
        }
#endif
        ask(c);
        waits[i].fd = c->socket;
        waits[i].events = POLLIN;
        live++;
    }
    while (live > 0) {
        need(poll(waits, connections, -1) > 0 || errno == EINTR, "poll");
        for (int i = 0; i < connections; i++) {
            struct connection *c = &all[i];
            if (waits[i].fd < 0 || !waits[i].revents)
                continue;
            if (c->in_head)
                read_head(c);
            else
                read_body(c);
            if (c->in_head || c->left)
                continue;
            if (many)
                need(close(c->file) == 0, "close");
            if (!ask(c)) {
                close(c->socket);
                waits[i].fd = -1;
                live--;
            }
        }
    }
    if (!many)
        need(close(shared_file) == 0, "close");
    return 0;
}
