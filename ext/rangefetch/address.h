/* Which addresses belong to the public Internet, by IANA's registries of special-purpose addresses (RFC 6890).
 *
 * An address that stands for an IPv4 address (mapped, translated, 6to4) is treated like that one.
 */
#ifndef RANGEFETCH_ADDRESS_H
#define RANGEFETCH_ADDRESS_H

#include "platform.h"

#include <stdint.h>
#include <string.h>
#ifndef _WIN32 /* where platform.h includes the equivalents */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#endif

typedef struct { uint32_t network; int bits; } rf_network4;

static const rf_network4 rf_private4[] = {
    {0x00000000, 8},  /* this network */
    {0x0A000000, 8},  /* private */
    {0x64400000, 10}, /* shared by the customers of a provider */
    {0x7F000000, 8},  /* loopback */
    {0xA9FE0000, 16}, /* link-local; cloud metadata services with secrets are here */
    {0xAC100000, 12}, /* private */
    {0xC0000000, 24}, /* IETF protocol assignments */
    {0xC0000200, 24}, /* documentation */
    {0xC0586300, 24}, /* 6to4 relays, now deprecated */
    {0xC0A80000, 16}, /* private */
    {0xC6120000, 15}, /* benchmarking */
    {0xC6336400, 24}, /* documentation */
    {0xCB007100, 24}, /* documentation */
    {0xE0000000, 4},  /* multicast */
    {0xF0000000, 4},  /* reserved, and broadcast */
};

static inline int rf_is_private4(uint32_t address) {
    for (size_t i = 0; i < sizeof rf_private4 / sizeof *rf_private4; i++)
        if (((address ^ rf_private4[i].network) >> (32 - rf_private4[i].bits)) == 0) return 1;
    return 0;
}

static inline uint32_t rf_be32(const uint8_t *octets) {
    return (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 | (uint32_t)octets[2] << 8 | octets[3];
}

static inline int rf_is_private6(const uint8_t *octets) {
    static const uint8_t translated[12] = {0, 0x64, 0xff, 0x9b};
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    uint32_t head = rf_be32(octets);
    if (memcmp(octets, mapped, 12) == 0 || memcmp(octets, translated, 12) == 0)
        return rf_is_private4(rf_be32(octets + 12));
    if (head >> 29 != 1) return 1;                 /* outside 2000::/3, which has all the public ones */
    if (head >> 9 == 0x20010000 >> 9) return 1;    /* 2001::/23: IETF protocol assignments, Teredo among them */
    if (head == 0x20010db8) return 1;              /* documentation */
    if (head >> 12 == 0x3fff0000 >> 12) return 1;  /* documentation */
    if (head >> 16 == 0x2002) return rf_is_private4(rf_be32(octets + 2));
    return 0;
}

/* Whether an address is not on the public Internet. Nothing is, except IPv4 and IPv6. */
static inline int rf_is_private(const struct sockaddr *address, unsigned int size) {
    if (address->sa_family == AF_INET && size >= sizeof(struct sockaddr_in))
        return rf_is_private4(ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr));
    if (address->sa_family == AF_INET6 && size >= sizeof(struct sockaddr_in6))
        return rf_is_private6(((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr);
    return 1;
}

/* The same for an address as text. Text that is no address counts as private, and so does one with a zone (%eth0). */
static inline int rf_text_is_private(const char *text) {
    struct in_addr four;
    struct in6_addr six;
    if (inet_pton(AF_INET, text, &four) == 1) return rf_is_private4(ntohl(four.s_addr));
    if (inet_pton(AF_INET6, text, &six) == 1) return rf_is_private6(six.s6_addr);
    return 1;
}

/* Writes an address as text; `size` is at least INET6_ADDRSTRLEN. */
static inline void rf_address_text(const struct sockaddr *address, char *text, unsigned int size) {
    const void *octets = address->sa_family == AF_INET6
        ? (const void *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr
        : (const void *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
    if ((address->sa_family != AF_INET && address->sa_family != AF_INET6) ||
        inet_ntop(address->sa_family, octets, text, size) == NULL)
        strcpy(text, "?");
}

#endif
