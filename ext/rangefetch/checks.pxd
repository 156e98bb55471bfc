"""Declarations of checks.h. Memory of the engine is allocated through these, so that debug builds can count it."""

from libc.stdint cimport int64_t


cdef extern from "checks.h" nogil:
    const bint RF_CHECKED
    enum:
        RF_LIVE_MEMORY
        RF_LIVE_DESCRIPTORS
    void rf_live_add(int kind, int64_t n)
    int64_t rf_live_count(int kind)
    void rf_check(bint holds, const char *what)

    void *malloc "rf_malloc"(size_t size)
    void *calloc "rf_calloc"(size_t count, size_t size)
    void *realloc "rf_realloc"(void *old, size_t size)
    void free "rf_free"(void *gone)
