/* The data model's validation rules for one event, wherever its members come from. */
#ifndef STEEP_EVENT_H
#define STEEP_EVENT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { EVENT_ID_BYTES = 255, EVENT_SOURCE_BYTES = 255 };

/* Borrowed bytes, not terminated; text is NULL if there are none. */
struct event_text {
    const char *text;
    size_t length;
};

/* Strings with their escapes resolved; no text for a member that is missing or not a string. */
struct event {
    struct event_text id;
    struct event_text source;
    struct event_text timestamp;
    struct event_text type; /* eventType, or type if there is no eventType */
    bool has_payload;       /* an object that jsonb can store */
};

/*
 * Returns the first rule that an event breaks, in this order:
 * ERROR_INVALID_EVENT_ID, ERROR_SOURCE_MISMATCH (it must equal source),
 * ERROR_INVALID_TIMESTAMP, ERROR_INVALID_EVENT_TYPE, ERROR_INVALID_PAYLOAD.
 * If source is NULL, the event may have any source that a query can ask for, else
 * ERROR_INVALID_SOURCE: 1 to 255 bytes of UTF-8 without control characters.
 */
enum error event_check(const struct event *event, const struct event_text *source) MUST_CHECK;

/* Whether two texts are the same bytes; a missing one equals no other. */
bool event_text_equals(const struct event_text *text, const char *other, size_t length);

#endif
