#include "db/array.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* Type OIDs never change (src/include/catalog/pg_type.dat). */
enum { INT4_OID = 23, TEXT_OID = 25, JSONB_OID = 3802 };
enum { HEADER_INTS = 5, DIMENSIONS = 1, NULLS = 0, LOWER_BOUND = 1 };

/* What the binary form of a jsonb begins with. */
static const char JSONB_VERSION = 1;

static unsigned char *put_int4(unsigned char *out, uint32_t value)
{
    uint32_t number = htonl(value);

    memcpy(out, &number, sizeof(number));
    return out + sizeof(number);
}

/* Allocates an array for items of so many bytes together, and writes its header. */
static unsigned char *begin(uint32_t type, size_t count, size_t bytes, size_t *length,
                            unsigned char **out)
{
    unsigned char *array;

    *length = (HEADER_INTS + count) * sizeof(uint32_t) + bytes;
    array = malloc(*length);
    if (array == NULL)
        return NULL;
    *out = put_int4(array, DIMENSIONS);
    *out = put_int4(*out, NULLS);
    *out = put_int4(*out, type);
    *out = put_int4(*out, (uint32_t)count);
    *out = put_int4(*out, LOWER_BOUND);
    return array;
}

static size_t total(const struct array_item *items, size_t count)
{
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++)
        bytes += items[i].length;
    return bytes;
}

unsigned char *array_of_text(const struct array_item *items, size_t count, size_t *length)
{
    unsigned char *out;
    unsigned char *array = begin(TEXT_OID, count, total(items, count), length, &out);

    for (size_t i = 0; array != NULL && i < count; i++) {
        out = put_int4(out, (uint32_t)items[i].length);
        memcpy(out, items[i].text, items[i].length);
        out += items[i].length;
    }
    return array;
}

unsigned char *array_of_jsonb(struct array_item *items, size_t count, size_t *length)
{
    unsigned char *out;
    unsigned char *array = begin(JSONB_OID, count, total(items, count) + count, length, &out);

    for (size_t i = 0; array != NULL && i < count; i++) {
        out = put_int4(out, (uint32_t)items[i].length + 1);
        *out++ = (unsigned char)JSONB_VERSION;
        memcpy(out, items[i].text, items[i].length);
        items[i].text = (const char *)out;
        out += items[i].length;
    }
    return array;
}

unsigned char *array_of_int4(const int32_t *items, size_t count, size_t *length)
{
    unsigned char *out;
    unsigned char *array = begin(INT4_OID, count, count * sizeof(int32_t), length, &out);

    for (size_t i = 0; array != NULL && i < count; i++) {
        out = put_int4(out, sizeof(int32_t));
        out = put_int4(out, (uint32_t)items[i]);
    }
    return array;
}
