#include "db/textarray.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_INTS = 5, DIMENSIONS = 1, NULLS = 0, TEXT_OID = 25, LOWER_BOUND = 1 };

static unsigned char *put_int4(unsigned char *out, size_t value)
{
    uint32_t number = htonl((uint32_t)value);

    memcpy(out, &number, sizeof(number));
    return out + sizeof(number);
}

unsigned char *textarray_encode(const struct textarray_item *items, size_t count, size_t *length)
{
    unsigned char *array, *out;
    size_t size = HEADER_INTS * sizeof(uint32_t);

    for (size_t i = 0; i < count; i++)
        size += sizeof(uint32_t) + items[i].length;
    array = malloc(size);
    if (array == NULL)
        return NULL;
    out = put_int4(array, DIMENSIONS);
    out = put_int4(out, NULLS);
    out = put_int4(out, TEXT_OID);
    out = put_int4(out, count);
    out = put_int4(out, LOWER_BOUND);
    for (size_t i = 0; i < count; i++) {
        out = put_int4(out, items[i].length);
        memcpy(out, items[i].text, items[i].length);
        out += items[i].length;
    }
    *length = size;
    return array;
}
