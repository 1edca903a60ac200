/*
 * One event, by the data model's validation rules: what they look at, and
 * what they say of it. Where the members come from is not known here.
 */
#ifndef STEEP_EVENT_H
#define STEEP_EVENT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { EVENT_ID_BYTES = 255 };

/* A string with its escapes resolved, not terminated; text is NULL where there is none. */
struct event_text {
    const char *text;
    size_t length;
};

/* A member that is missing, or not a string, has no text. */
struct event {
    struct event_text id;
    struct event_text source;
    struct event_text timestamp;
    struct event_text type; /* eventType's where it is there, else type's */
    bool has_payload;       /* an object that jsonb can store */
};

/*
 * Says which rule an event breaks first, in the order of its fields:
 * ERROR_INVALID_EVENT_ID, ERROR_SOURCE_MISMATCH (unlike the one given),
 * ERROR_INVALID_TIMESTAMP, ERROR_INVALID_EVENT_TYPE, ERROR_INVALID_PAYLOAD.
 */
enum error event_check(const struct event *event, const struct event_text *source) MUST_CHECK;

/* Whether two texts are the same bytes; what is no text equals none. */
bool event_text_equals(const struct event_text *text, const char *other, size_t length);

#endif
