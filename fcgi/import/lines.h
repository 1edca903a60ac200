/*
 * Lines of events, one JSON object each (NDJSON), as they become a batch: each is checked by
 * itself, and those that are valid are one JSON array. No I/O.
 */
#ifndef STEEP_LINES_H
#define STEEP_LINES_H

#include "base/attributes.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    LINES_EVENTS = 1000,
    /* As many as have fewer objects and arrays than ingest accepts in a batch. */
    LINES_BYTES = 256 * 1024,
    /*
     * Of one line. An event of 64 KiB, which ingest accepts, can be 3.4 MB of jsonb's text:
     * 1e308 is printed with all its digits.
     */
    LINES_LINE_BYTES = 4 * 1024 * 1024,
};

struct lines_event {
    size_t at; /* where its line begins in the text */
    size_t length;
    int64_t number; /* of the line */
    enum error error;
};

struct lines {
    size_t length; /* of the text */
    size_t count;
    size_t valid; /* how many of them; after lines_check */
    struct lines_event events[LINES_EVENTS];
    char text[LINES_BYTES + LINES_LINE_BYTES + 8];
};

/* Removes all lines. */
void lines_clear(struct lines *lines);

/* Where to write the next line, of at most LINES_LINE_BYTES; NULL if there is no room. */
char *lines_next(struct lines *lines) MUST_CHECK;

/*
 * Adds what was written there; white space alone is no event. An error other than ERROR_NONE
 * is that of a line which the caller could not read.
 */
void lines_add(struct lines *lines, size_t length, int64_t number, enum error error);

/*
 * Checks each line (batch_check_single), sets its error, and makes the text one JSON array of
 * those that are valid.
 */
void lines_check(struct lines *lines);

/* The array of one valid event, and its length; text is no longer an array afterwards. */
const char *lines_single(struct lines *lines, size_t index, size_t *length);

#endif
