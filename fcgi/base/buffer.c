#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FIRST_BYTES = 1024,
    KEPT_BYTES = 1024 * 1024,
    INTEGER_BYTES = sizeof("-9223372036854775808"),
};

bool buffer_grow(struct buffer *out, size_t more)
{
    size_t size = out->size > 0 ? out->size : FIRST_BYTES;
    char *text;

    while (size - out->length <= more)
        size *= 2;
    text = realloc(out->text, size);
    if (text == NULL) {
        out->is_short = true;
        return false;
    }
    out->text = text;
    out->size = size;
    return true;
}

void buffer_add_integer(struct buffer *out, int64_t value)
{
    char digits[INTEGER_BYTES];
    char *at = digits + sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0)
        *--at = '-';
    buffer_add(out, at, (size_t)(digits + sizeof(digits) - at));
}

void buffer_printf(struct buffer *out, const char *format, ...)
{
    va_list args;
    char text[1024]; /* longer than any sentence of ours */
    int length;

    va_start(args, format);
    length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < sizeof(text))
        buffer_add(out, text, (size_t)length);
    else
        out->is_short = true;
}

void buffer_add_json(struct buffer *out, const char *text, size_t length)
{
    size_t done = 0;

    buffer_add(out, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buffer_add(out, text + done, i - done);
        buffer_printf(out, "\\u%04x", c);
        done = i + 1;
    }
    buffer_add(out, text + done, length - done);
    buffer_add(out, "\"", 1);
}

void buffer_reset(struct buffer *out)
{
    if (out->size > KEPT_BYTES)
        buffer_free(out);
    out->length = 0;
    out->is_short = false;
}

void buffer_free(struct buffer *out)
{
    free(out->text);
    *out = (struct buffer){0};
}
