/* Compression by gzip (RFC 1952), and which clients accept it. */
#ifndef STEEP_GZIP_H
#define STEEP_GZIP_H

#include "base/attributes.h"
#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

struct gzip;

/* Whether an Accept-Encoding header (RFC 9110, section 12.5.3) accepts gzip; NULL does not. */
bool gzip_is_accepted(const char *header) MUST_CHECK;

/* Begins to compress at level 1. NULL if out of memory; the caller frees with gzip_free. */
struct gzip *gzip_new(void) MUST_CHECK;
void gzip_free(struct gzip *gzip);

/*
 * Compresses text, and adds what comes out of it to a buffer; with is_end all that is left, and
 * the end. Without memory the buffer is short (base/buffer.h).
 */
void gzip_add(struct gzip *gzip, struct buffer *out, const char *text, size_t length, bool is_end);

#endif
