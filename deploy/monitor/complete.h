/*
 * Completes an event: fills in the members that a line leaves out, and checks
 * the result as the server does.
 */
#ifndef STEEP_COMPLETE_H
#define STEEP_COMPLETE_H

#include "event/batch.h"

#include <time.h>

enum {
    COMPLETE_LINE_BYTES = 72 * 1024, /* an event and some white space */
    COMPLETE_SOURCE_BYTES = 255,
    COMPLETE_RANDOM_BYTES = 4096,
    COMPLETE_ID_BYTES = 24,   /* evt_ and 20 characters of [a-z0-9] */
    COMPLETE_STAMP_BYTES = 24 /* 2026-02-03T14:35:00.123Z */
};

struct completer {
    char source[COMPLETE_SOURCE_BYTES + 1];
    size_t source_length;
    struct batch batch;
    unsigned char random[COMPLETE_RANDOM_BYTES]; /* not yet used from random_at on */
    size_t random_at;
    char id[COMPLETE_ID_BYTES];
    time_t second; /* whose stamp this is */
    char stamp[COMPLETE_STAMP_BYTES + 1];
    char line[COMPLETE_LINE_BYTES + 4];
    char text[COMPLETE_LINE_BYTES + 2048];
};

/* source: 1 to 255 printable ASCII characters. Caller frees with free; NULL: no memory. */
struct completer *completer_new(const char *source);

/*
 * Completes the event of a line of at most COMPLETE_LINE_BYTES. An id, a
 * source and a timestamp are added in front where there is none of that name;
 * what is there stays byte for byte. *text points into the completer and lives
 * until the next call.
 *
 * ERROR_INVALID_REQUEST: the line isn't one JSON object in UTF-8; else an
 * event's errors, or ERROR_INTERNAL when memory is short.
 */
enum error complete_event(struct completer *completer, const char *line, size_t length,
                          const char **text, size_t *text_length) MUST_CHECK;

/* What is said of a line for an error: a code and a sentence. */
const char *complete_error_code(enum error error);
const char *complete_error_message(enum error error);

#endif
