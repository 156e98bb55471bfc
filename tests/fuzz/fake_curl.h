/* For harness.pyx: a libcurl that has just received a response, of which it has only the status and the headers. */
#ifndef FAKE_CURL_H
#define FAKE_CURL_H

#include <stdarg.h>
#include <stdlib.h>
#include <strings.h>

#include "libcurl.h"

enum { MOST_HEADERS = 64, MOST_TEXT = 1 << 16 };

static struct { char *name; char *value; } fake_headers[MOST_HEADERS];
static int fake_header_count;
static char fake_text[MOST_TEXT + 1];
static long fake_status;

/* Receives lines "Name: value", as a server might send them. NUL bytes become spaces, since libcurl rejects them. */
static void fake_receive(long status, const unsigned char *data, size_t size) {
    fake_status = status;
    fake_header_count = 0;
    if (size > MOST_TEXT) size = MOST_TEXT;
    for (size_t i = 0; i < size; i++) fake_text[i] = data[i] ? (char)data[i] : ' ';
    fake_text[size] = 0;
    char *line = fake_text;
    while (line && fake_header_count < MOST_HEADERS) {
        char *next = strchr(line, '\n');
        if (next) *next++ = 0;
        char *colon = strchr(line, ':');
        if (colon) {
            *colon++ = 0;
            while (*colon == ' ' || *colon == '\t') colon++;
            char *end = colon + strlen(colon);
            while (end > colon && strchr(" \t\r", end[-1])) *--end = 0;
            fake_headers[fake_header_count].name = line;
            fake_headers[fake_header_count++].value = colon;
        }
        line = next;
    }
}

static int fake_header(
    CURL *easy, const char *name, size_t number, unsigned origin, int request, struct curl_header **found) {
    static struct curl_header header;
    header.amount = 0;
    for (int i = 0; i < fake_header_count; i++)
        if (strcasecmp(fake_headers[i].name, name) == 0) {
            if (header.amount++ == number) {
                header.name = fake_headers[i].name;
                header.value = fake_headers[i].value;
            }
        }
    *found = &header;
    return header.amount > number ? 0 : 1;
}

/* Content-Length as libcurl reads it: only digits, only what fits, and ignored if there is a Transfer-Encoding. */
static int64_t fake_length(void) {
    struct curl_header *header = NULL;
    if (fake_header(NULL, "Transfer-Encoding", 0, 1, -1, &header) == 0) return -1;
    if (fake_header(NULL, "Content-Length", 0, 1, -1, &header) != 0) return -1;
    int64_t length = 0;
    for (const char *at = header->value; *at; at++) {
        if (*at < '0' || *at > '9' || length > (INT64_MAX - 9) / 10) return -1;
        length = length * 10 + (*at - '0');
    }
    return *header->value ? length : -1;
}

static CURLcode fake_getinfo(CURL *easy, CURLINFO info, ...) {
    va_list arguments;
    va_start(arguments, info);
    void *where = va_arg(arguments, void *);
    va_end(arguments);
    if (info == CURLINFO_RESPONSE_CODE) *(long *)where = fake_status;
    else if (info == CURLINFO_CONTENT_LENGTH_DOWNLOAD_T) *(int64_t *)where = fake_length();
    else return CURLE_UNSUPPORTED_PROTOCOL;
    return CURLE_OK;
}

/* Replaces two functions in libcurl.h's table; the names are its macros for the table's fields. */
static void fake_begin(void) {
    curl_easy_header = fake_header;
    curl_easy_getinfo = fake_getinfo;
}

#endif
