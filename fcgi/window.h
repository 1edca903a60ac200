/* The query string of GET /query: which days, and of which source. */
#ifndef STEEP_WINDOW_H
#define STEEP_WINDOW_H

#include "error.h"

#include <stddef.h>

enum { WINDOW_SOURCE_BYTES = 255 };

struct window {
    int days;             /* 7 or 30 */
    size_t source_length; /* 0: all sources */
    char source[WINDOW_SOURCE_BYTES + 1];
};

/*
 * Reads an application/x-www-form-urlencoded query string (WHATWG URL,
 * section 5.1; names are decoded as well). Unknown parameters are ignored.
 *
 * ERROR_INVALID_QUERY: a broken percent escape, or days or source given twice;
 * ERROR_INVALID_DAYS: days is not exactly 7 or 30;
 * ERROR_INVALID_SOURCE: source is empty, longer than 255 bytes, not UTF-8, or
 * holds a control character.
 */
enum error window_parse(const char *query, struct window *window) MUST_CHECK;

#endif
