#include "http/gzip.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#define ZLIB_CONST
#include <zlib.h>

enum {
    LEVEL = 1,                /* a twentieth of the size; higher levels cost more and gain little */
    WINDOW_OF_GZIP = 15 + 16, /* 32 KiB, with a header of gzip (zlib.h, deflateInit2) */
    MEMORY = 8,               /* zlib's default */
    PART_BYTES = 16 * 1024,
};

struct gzip {
    z_stream stream;
};

static const char *skip_space(const char *text)
{
    return text + strspn(text, " \t");
}

/* Whether the parameters behind a coding have a weight of 0. */
static bool is_refused(const char *parameters, size_t length)
{
    const char *end = parameters + length;
    const char *at = memchr(parameters, ';', length);

    if (at == NULL)
        return false;
    at = skip_space(at + 1);
    if (end - at < 3 || strncasecmp(at, "q=", 2) != 0 || at[2] != '0')
        return false;
    for (at += 3; at < end && (*at == '.' || *at == '0'); at++)
        ;
    return at == end || *at == ' ' || *at == '\t';
}

bool gzip_is_accepted(const char *header)
{
    bool is_any_accepted = false;

    for (const char *at = header; at != NULL && *at != '\0';) {
        size_t name;
        size_t length;

        at = skip_space(at);
        length = strcspn(at, ",");
        name = strcspn(at, ",; \t");
        if ((name == 4 && strncasecmp(at, "gzip", name) == 0) ||
            (name == 6 && strncasecmp(at, "x-gzip", name) == 0))
            return !is_refused(at + name, length - name);
        if (name == 1 && *at == '*')
            is_any_accepted = !is_refused(at + name, length - name);
        at += length;
        at += *at == ',';
    }
    return is_any_accepted;
}

struct gzip *gzip_new(void)
{
    struct gzip *gzip = calloc(1, sizeof(*gzip));

    if (gzip != NULL && deflateInit2(&gzip->stream, LEVEL, Z_DEFLATED, WINDOW_OF_GZIP, MEMORY,
                                     Z_DEFAULT_STRATEGY) == Z_OK)
        return gzip;
    free(gzip);
    return NULL;
}

void gzip_free(struct gzip *gzip)
{
    if (gzip == NULL)
        return;
    deflateEnd(&gzip->stream);
    free(gzip);
}

void gzip_add(struct gzip *gzip, struct buffer *out, const char *text, size_t length, bool is_end)
{
    z_stream *stream = &gzip->stream;
    /* Zeroed for cppcheck, which does not see that zlib fills it. */
    unsigned char part[PART_BYTES] = {0};

    stream->next_in = (const unsigned char *)text;
    stream->avail_in = (unsigned int)length;
    do {
        stream->next_out = part;
        stream->avail_out = sizeof(part);
        (void)deflate(stream, is_end ? Z_FINISH : Z_NO_FLUSH);
        buffer_add(out, (const char *)part, sizeof(part) - stream->avail_out);
    } while (stream->avail_out == 0);
}
