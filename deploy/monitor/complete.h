/*
 * Completes an event: fills in the members that a line leaves out, and checks
 * the result as the server does. The source is filled in when an event is sent.
 */
#ifndef STEEP_COMPLETE_H
#define STEEP_COMPLETE_H

#include "event/batch.h"

#include <stdint.h>

enum {
    COMPLETE_LINE_BYTES = 72 * 1024, /* an event and some white space */
    COMPLETE_SOURCE_BYTES = 255,
    COMPLETE_RANDOM_BYTES = 4096,
    COMPLETE_ID_BYTES = 24,    /* evt_ and 20 characters of [a-z0-9] */
    COMPLETE_STAMP_BYTES = 24, /* 2026-02-03T14:35:00.123Z */
    COMPLETE_MEMBERS_BYTES = 1024,
};

struct stamp {
    int64_t second; /* whose text this is */
    char text[COMPLETE_STAMP_BYTES + 1];
};

struct completer {
    char source[COMPLETE_SOURCE_BYTES + 1];
    struct batch batch;
    unsigned char random[COMPLETE_RANDOM_BYTES]; /* not yet used from random_at on */
    size_t random_at;
    char id[COMPLETE_ID_BYTES + 1];
    char named[COMPLETE_MEMBERS_BYTES]; /* the source as it will be filled in */
    struct stamp stamp;
    char line[COMPLETE_LINE_BYTES + 4];
    char text[COMPLETE_LINE_BYTES + COMPLETE_MEMBERS_BYTES];
};

struct completed {
    const char *text; /* in the completer, or the line; valid until the next call */
    size_t length;
    bool has_source;
    bool has_timestamp;
};

/* source: 1 to 255 printable ASCII characters. Caller frees with free; NULL: no memory. */
struct completer *completer_new(const char *source);

/*
 * Completes the event of a line of at most COMPLETE_LINE_BYTES. An id and, if
 * now (in ms since 1970) is not 0, a timestamp are added in front where there
 * is none of that name; what is there stays byte for byte. The event's size is
 * checked as if a timestamp and a source of 255 bytes had been added.
 *
 * ERROR_INVALID_REQUEST: the line isn't one JSON object in UTF-8; else an
 * event's errors, or ERROR_INTERNAL when memory is short.
 */
enum error complete_event(struct completer *completer, const char *line, size_t length, int64_t now,
                          struct completed *completed) MUST_CHECK;

/* Writes a time in UTC, to the millisecond. A stamp of zeros has no text yet. */
void complete_stamp(struct stamp *stamp, int64_t ms);

/* Appends a member that is a string of ASCII, and a comma; returns the new length. */
size_t complete_member(char *text, size_t length, const char *name, const char *string);

/* What is said of a line for an error: a code and a sentence. */
const char *complete_error_code(enum error error);
const char *complete_error_message(enum error error);

#endif
