/*
 * A batch: the bytes of a JSON array of events, checked by the data model's
 * validation rules without being changed.
 *
 * There are two judges. The splitter finds where each event begins and ends,
 * so that number, size and depth are known before anything is built, and looks
 * at each token; json-c then reads one event at a time, unless skimming it has
 * shown the same already. What both let pass and PostgreSQL doesn't, it
 * refuses later.
 */
#ifndef STEEP_BATCH_H
#define STEEP_BATCH_H

#include "base/error.h"
#include "event/splitter.h"

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
    struct splitter_element events[BATCH_EVENTS];
    size_t rejected_count; /* in order of index, one an event */
    struct batch_rejection rejected[BATCH_EVENTS];
};

/*
 * Finds the events of a body. body[length] must be a readable NUL; the events
 * point into the body, which must outlive them.
 *
 * ERROR_INVALID_REQUEST: not UTF-8, or not the outline of a JSON array;
 * ERROR_EMPTY_BATCH: no event;
 * ERROR_BATCH_TOO_LARGE: more than 1000 of them, or more than 200,000 objects
 * and arrays in all.
 */
enum error batch_split(struct batch *batch, const char *body, size_t length) MUST_CHECK;

/*
 * Checks each event by itself; every bad one is listed in rejected.
 * source is X-Source-ID, which each event's source must equal.
 *
 * ERROR_INVALID_REQUEST: something in the array is not JSON; the error of the
 * first event rejected; ERROR_INTERNAL when memory is short.
 */
enum error batch_check(struct batch *batch, const char *source, size_t source_length) MUST_CHECK;

/* Lists one more event as rejected, behind those with a lower index; passes over one not there. */
void batch_reject(struct batch *batch, size_t index, enum error error);

#endif
