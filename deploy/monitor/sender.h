/*
 * The sender: the thread that takes batches from the spool, posts them, and
 * removes the events that the server has stored or rejected.
 */
#ifndef STEEP_SENDER_H
#define STEEP_SENDER_H

#include "answer.h"
#include "keys.h"
#include "outgoing.h"
#include "post.h"
#include "rejected.h"
#include "spool.h"
#include "state.h"

enum { SENDER_STOP_MS = 4000 }; /* for the last batches; the whole shutdown takes at most 5 s */

struct sender {
    struct spool *spool;
    struct rejected *rejected;
    struct state *state;
    struct post *post;
    const struct keys *keys;
    size_t max_events; /* in a batch */
    int64_t interval_ms;
    int wake; /* eventfd: wakes the main thread after events were removed, and at the end */

    /* Used by the thread alone. */
    struct outgoing *outgoing;
    struct answer answer;
    size_t limit; /* events in a batch: max_events, or fewer after a 413 */
    unsigned failures;
    char signature[KEYS_SIGNATURE_TEXT_BYTES + 1];

    /* Guarded by the spool's lock; changes are signalled by its condition. */
    uint64_t flush_to; /* send events before this serial without waiting for more */
    bool retry_now;    /* end the current delay */
    bool is_finishing; /* the input has ended */
    bool is_stopping;  /* stop at stop_at */
    bool has_ended;
    int64_t stop_at;
    pthread_t thread;
};

/* Starts the thread. What the struct points to must outlive it. False: no memory. */
bool sender_start(struct sender *sender) MUST_CHECK;

/* Sends pending events now. retry_now: also ends the delay before a retry. */
void sender_flush(struct sender *sender, bool retry_now);

/* Ends the thread when all events are sent, or SENDER_STOP_MS after a failure. */
void sender_finish(struct sender *sender);

/* Ends the thread within SENDER_STOP_MS, in which it sends pending events. */
void sender_stop(struct sender *sender);

bool sender_has_ended(struct sender *sender);
void sender_join(struct sender *sender);

#endif
