/*
 * The errors of the HTTP contract: each refusal that a program can answer, with its
 * status, the code for programs and the sentence for people. A stage of a request
 * returns ERROR_NONE, which is 0, or the error for the client; callers pass it on
 * unchanged.
 */
#ifndef STEEP_ERROR_H
#define STEEP_ERROR_H

#include "base/attributes.h"

#include <stddef.h>

enum error {
    ERROR_NONE = 0,

    ERROR_NOT_FOUND,
    ERROR_METHOD_NOT_ALLOWED,
    ERROR_PAYLOAD_TOO_LARGE,
    ERROR_UNAVAILABLE,
    ERROR_INTERNAL,
    ERROR_INVALID_REQUEST,

    /* POST /ingest, the batch */
    ERROR_MISSING_SIGNATURE,
    ERROR_UNKNOWN_SOURCE,
    ERROR_INVALID_SIGNATURE,
    ERROR_EMPTY_BATCH,
    ERROR_BATCH_TOO_LARGE,

    /* POST /ingest, one event; see the data model's validation rules */
    ERROR_INVALID_EVENT,
    ERROR_INVALID_EVENT_ID,
    ERROR_SOURCE_MISMATCH,
    ERROR_INVALID_TIMESTAMP,
    ERROR_INVALID_EVENT_TYPE,
    ERROR_INVALID_PAYLOAD,

    /* GET /query */
    ERROR_MISSING_TOKEN,
    ERROR_INVALID_TOKEN,
    ERROR_INVALID_DAYS,
    ERROR_INVALID_SOURCE,
    ERROR_INVALID_GROUP_BY,
    ERROR_INVALID_QUERY,

    ERROR_COUNT
};

/* Adjacent errors of the list above, both ends included. */
struct error_range {
    enum error first, last;
};

struct error_entry {
    int status;          /* HTTP status */
    const char *code;    /* the "error" member, and the status line's reason */
    const char *message; /* the "message" member; of an event's error, the part after "Event N: " */
};

/* The entry of an error; ERROR_NONE has one without a message. Static storage. */
const struct error_entry *error_entry(enum error error);

/*
 * The error of an event with this code, as the database returns it; ERROR_INVALID_EVENT
 * for an unknown code.
 */
enum error error_of_event(const char *code, size_t length);

#endif
