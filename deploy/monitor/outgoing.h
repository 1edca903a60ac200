/* The batch being sent: events from the spool, as the body that is signed. */
#ifndef STEEP_OUTGOING_H
#define STEEP_OUTGOING_H

#include "event/batch.h"
#include "segment.h"
#include "spool.h"

enum { OUTGOING_BODY_BYTES = 1024 * 1024 };

struct outgoing_event {
    size_t offset; /* in the body */
    size_t length;
    struct spool_place end; /* in the spool, after it and the events removed behind it */
};

struct outgoing {
    struct segment_reader reader;
    struct spool_place reported; /* damage was reported up to here */
    struct spool_place end;      /* after the batch */
    size_t count;
    struct outgoing_event events[BATCH_EVENTS];
    size_t length;
    char body[OUTGOING_BODY_BYTES];
};

/* Caller frees with outgoing_free. NULL: no memory. */
struct outgoing *outgoing_new(int folder);
void outgoing_free(struct outgoing *outgoing);

/*
 * Loads the oldest pending events, at most max_events and 1 MiB. If there are
 * none, count is 0, and end is after any damage that was skipped. False with
 * errno if the spool can't be read.
 */
bool outgoing_load(struct outgoing *outgoing, struct spool *spool, size_t max_events) MUST_CHECK;

/* Keeps only the first count events, 1 or more. */
void outgoing_shorten(struct outgoing *outgoing, size_t count);

/* Removes one event. Don't send a batch that became empty. */
void outgoing_remove(struct outgoing *outgoing, size_t index);

#endif
