/* Debug builds (-DRF_CHECKS, `make debug`): a broken invariant aborts the process, and live resources are counted. In
 * other builds all of this compiles to nothing. */
#ifndef RANGEFETCH_CHECKS_H
#define RANGEFETCH_CHECKS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The kinds of resources that are counted. */
enum { RF_LIVE_MEMORY, RF_LIVE_DESCRIPTORS, RF_LIVE_KINDS };

#ifdef RF_CHECKS
#define RF_CHECKED 1

static int64_t rf_live[RF_LIVE_KINDS];

#define rf_live_add(kind, n) ((void)__atomic_add_fetch(&rf_live[kind], (n), __ATOMIC_RELAXED))
#define rf_live_count(kind) __atomic_load_n(&rf_live[kind], __ATOMIC_RELAXED)

static inline void rf_broken(const char *what) {
    fprintf(stderr, "rangefetch: broken invariant: %s\n", what);
    fflush(stderr);
    abort();
}

#define rf_check(holds, what) ((holds) ? (void)0 : rf_broken(what))

/* Memory that the engine allocates itself; objects of Python are not counted. */
static inline void *rf_counted(void *made) {
    if (made) rf_live_add(RF_LIVE_MEMORY, 1);
    return made;
}
static inline void *rf_recounted(void *old, size_t size) {
    void *made = realloc(old, size);
    if (made && !old) rf_live_add(RF_LIVE_MEMORY, 1);
    return made;
}
static inline void rf_uncounted(void *gone) {
    if (gone) rf_live_add(RF_LIVE_MEMORY, -1);
    free(gone);
}
#define rf_malloc(size) rf_counted(malloc(size))
#define rf_calloc(count, size) rf_counted(calloc((count), (size)))
#define rf_realloc rf_recounted
#define rf_free rf_uncounted

#else
#define RF_CHECKED 0
#define rf_live_add(kind, n) ((void)0)
#define rf_live_count(kind) ((int64_t)0)
#define rf_check(holds, what) ((void)(0 && (holds)))
#define rf_malloc malloc
#define rf_calloc calloc
#define rf_realloc realloc
#define rf_free free
#endif

#endif
