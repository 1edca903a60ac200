/*
 * The errors of the HTTP contract: every refusal that a program can answer,
 * each with its status, the code that programs read and the sentence that
 * people read. A stage of a request returns ERROR_NONE, which is 0, or the
 * entry that the client shall get; callers pass it on as it is.
 */
#ifndef STEEP_ERROR_H
#define STEEP_ERROR_H

#include <stddef.h>

/* For functions whose verdict must not be lost. */
#define MUST_CHECK __attribute__((warn_unused_result))

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
    ERROR_INVALID_QUERY,

    ERROR_COUNT
};

/* Errors that stand together above, both ends included. */
struct error_range {
    enum error first, last;
};

struct error_entry {
    int status;          /* HTTP status */
    const char *code;    /* the "error" member, and the status line's reason */
    const char *message; /* the "message" member; for an event, what follows "Event N: " */
};

/* The entry of an error, or of ERROR_NONE, which has no message; static storage. */
const struct error_entry *error_entry(enum error error);

/*
 * The event error with this code, as the database names it;
 * ERROR_INVALID_EVENT for a code that is none.
 */
enum error error_of_event(const char *code, size_t length);

#endif
