/* Texts as the binary form of PostgreSQL's text[] (its array_recv). */
#ifndef STEEP_TEXTARRAY_H
#define STEEP_TEXTARRAY_H

#include "base/attributes.h"

#include <stddef.h>

struct textarray_item {
    const char *text;
    size_t length; /* bytes; all together below 1 GiB */
};

/* Returns the array and writes its length; NULL if out of memory. The caller frees it with
 * free. */
unsigned char *textarray_encode(const struct textarray_item *items, size_t count,
                                size_t *length) MUST_CHECK;

#endif
