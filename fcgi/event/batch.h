/*
 * A batch: the bytes of a JSON array of events, checked by the data model's
 * validation rules and passed on unchanged.
 *
 * The scanner judges the JSON and finds what the rules look at; json-c resolves
 * escapes. PostgreSQL parses the whole again, and may refuse it later.
 */
#ifndef STEEP_BATCH_H
#define STEEP_BATCH_H

#include "base/error.h"
#include "event/scan.h"

#include <stddef.h>

enum {
    BATCH_BODY_BYTES = 5 * 1024 * 1024,
    BATCH_EVENTS = 1000,
    BATCH_NODES = 200000, /* objects and arrays; each costs PostgreSQL up to 700 bytes of memory */
    BATCH_EVENT_BYTES = 64 * 1024,
    BATCH_EVENT_DEPTH = 32, /* the event itself is the first level */
};

struct batch_rejection {
    size_t index; /* position in the batch, from 0 */
    enum error error;
};

struct batch {
    size_t count;
    struct scan_event events[BATCH_EVENTS];
    size_t rejected_count;
    struct batch_rejection rejected[BATCH_EVENTS]; /* in order of index, one for each event */
};

/*
 * Finds the events of a body. body[length] must be a readable NUL; the events
 * point into the body, which must outlive them.
 *
 * ERROR_INVALID_REQUEST: not UTF-8, or its brackets and quotes form no array;
 * ERROR_EMPTY_BATCH: no event;
 * ERROR_BATCH_TOO_LARGE: more than 1000 events, or more than 200,000 objects
 * and arrays in all.
 */
enum error batch_split(struct batch *batch, const char *body, size_t length) MUST_CHECK;

/*
 * Checks each event by itself and lists every bad one in rejected. source is
 * X-Source-ID, which each event's source must equal.
 *
 * ERROR_INVALID_REQUEST: an event is not JSON; ERROR_INTERNAL: memory is short;
 * otherwise the error of the first event rejected.
 */
enum error batch_check(struct batch *batch, const char *source, size_t source_length) MUST_CHECK;

/*
 * Checks the event of an array that must have just one, as batch_check does, except that it
 * may have any source (see event_check) and any size: jsonb prints an event longer than it
 * was sent. body[length] must be a readable NUL.
 *
 * ERROR_INVALID_REQUEST: not an array of one event, not UTF-8, or not JSON;
 * ERROR_INVALID_EVENT also for more than 200,000 objects and arrays.
 */
enum error batch_check_single(const char *body, size_t length) MUST_CHECK;

/* Adds an event to rejected; its index must be above those there. Ignores one beyond the batch. */
void batch_reject(struct batch *batch, size_t index, enum error error);

#endif
