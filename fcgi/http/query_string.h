/* The query string of GET /query: the parameters days, source and group_by. */
#ifndef STEEP_QUERY_STRING_H
#define STEEP_QUERY_STRING_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { QUERY_STRING_SOURCE_BYTES = 255 };

/* What the events are counted by. */
enum query_grouping {
    QUERY_BY_SOURCE_AND_HOUR, /* without group_by */
    QUERY_BY_HOUR,
    QUERY_BY_SOURCE,
};

struct query_string {
    int days;             /* 7 or 30 */
    size_t source_length; /* 0: all sources */
    char source[QUERY_STRING_SOURCE_BYTES + 1];
    enum query_grouping grouping;
};

/*
 * Reads an application/x-www-form-urlencoded query string (WHATWG URL,
 * section 5.1; names are decoded as well). Unknown parameters are ignored.
 *
 * ERROR_INVALID_QUERY: a broken percent escape, or a known parameter given twice;
 * ERROR_INVALID_DAYS: days is not exactly 7 or 30;
 * ERROR_INVALID_SOURCE: source is empty, longer than 255 bytes, not UTF-8, or
 * holds a control character;
 * ERROR_INVALID_GROUP_BY: group_by is not exactly hour or source.
 */
enum error query_string_parse(const char *query, struct query_string *parameters) MUST_CHECK;

/* Whether two are the same question, so that one answer is for both. */
bool query_string_equal(const struct query_string *a, const struct query_string *b) MUST_CHECK;

#endif
