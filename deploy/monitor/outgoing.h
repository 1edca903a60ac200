/* The batch being sent: the body that is signed, and the events in it. */
#ifndef STEEP_OUTGOING_H
#define STEEP_OUTGOING_H

#include "event/batch.h"

#include <stdint.h>

enum { OUTGOING_BODY_BYTES = 1024 * 1024 };

struct outgoing {
    size_t count;
    int64_t serials[BATCH_EVENTS];
    int64_t refused; /* how many batches had been accepted when its only event was refused; or -1 */
    size_t length;
    char body[OUTGOING_BODY_BYTES];
};

void outgoing_clear(struct outgoing *outgoing);

/*
 * Appends an event, with a source or a timestamp in front of its members unless
 * they are NULL. False if it doesn't fit.
 */
bool outgoing_add(struct outgoing *outgoing, int64_t serial, const char *text, size_t length,
                  const char *source, const char *timestamp) MUST_CHECK;

#endif
