/* A batch on its way: events from the spool, as the body that is signed and sent. */
#ifndef STEEP_OUTGOING_H
#define STEEP_OUTGOING_H

#include "event/batch.h"
#include "segment.h"
#include "spool.h"

enum { OUTGOING_BODY_BYTES = 1024 * 1024 };

struct outgoing_event {
    size_t offset; /* in the body */
    size_t length;
    struct spool_place end; /* behind it in the spool, and behind what was removed after it */
};

struct outgoing {
    struct segment_reader reader;
    struct spool_place reported; /* up to where damage was reported */
    struct spool_place end;      /* behind the batch */
    size_t count;
    struct outgoing_event events[BATCH_EVENTS];
    size_t length;
    char body[OUTGOING_BODY_BYTES];
};

/* Caller frees with outgoing_free. NULL: no memory. */
struct outgoing *outgoing_new(int folder);
void outgoing_free(struct outgoing *outgoing);

/*
 * Reads the oldest events that wait, at most so many and 1 MiB. Without any,
 * count is 0, and end may lie behind damage that was passed over. False with
 * errno where the spool can't be read.
 */
bool outgoing_load(struct outgoing *outgoing, struct spool *spool, size_t most) MUST_CHECK;

/* Leaves the first of the events in the batch; count is 1 or more. */
void outgoing_shorten(struct outgoing *outgoing, size_t count);

/* Takes one out; the batch may become empty, and is then not to be sent. */
void outgoing_remove(struct outgoing *outgoing, size_t index);

#endif
