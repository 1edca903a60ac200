/* Arrays of one dimension in PostgreSQL's binary form (its array_recv). */
#ifndef STEEP_ARRAY_H
#define STEEP_ARRAY_H

#include "base/attributes.h"

#include <stddef.h>
#include <stdint.h>

struct array_item {
    const char *text;
    size_t length; /* bytes; all together below 1 GiB */
};

/*
 * Each returns the array and writes its length in bytes; NULL if out of memory. The caller
 * frees it with free. array_of_jsonb leaves the items pointing to the copies in the array.
 */
unsigned char *array_of_text(const struct array_item *items, size_t count,
                             size_t *length) MUST_CHECK;
unsigned char *array_of_jsonb(struct array_item *items, size_t count, size_t *length) MUST_CHECK;
unsigned char *array_of_int4(const int32_t *items, size_t count, size_t *length) MUST_CHECK;

#endif
