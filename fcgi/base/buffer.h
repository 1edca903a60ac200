/* Text that grows, and JSON strings in it. */
#ifndef STEEP_BUFFER_H
#define STEEP_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Once memory is short, is_short is set and nothing more is added. {0} is an empty one. */
struct buffer {
    char *text;
    size_t length;
    size_t size;
    bool is_short;
};

/* Makes room for so many bytes more and a terminator: false if memory is short. */
bool buffer_grow(struct buffer *out, size_t more);

/* Inline: the text of an answer is added in tens of thousands of small parts. */
static inline void buffer_add(struct buffer *out, const char *text, size_t length)
{
    if (out->is_short || (out->size - out->length <= length && !buffer_grow(out, length)))
        return;
    memcpy(out->text + out->length, text, length);
    out->length += length;
    out->text[out->length] = '\0';
}

static inline void buffer_add_text(struct buffer *out, const char *text)
{
    buffer_add(out, text, strlen(text));
}

void buffer_add_integer(struct buffer *out, int64_t value);

/* Adds formatted text of up to 1023 bytes; anything longer sets is_short. */
void buffer_printf(struct buffer *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Adds a JSON string (RFC 8259), quotes included, of valid UTF-8. */
void buffer_add_json(struct buffer *out, const char *text, size_t length);

/* Clears the text, and keeps its memory unless it is large. buffer_free frees it. */
void buffer_reset(struct buffer *out);
void buffer_free(struct buffer *out);

#endif
