/*
 * The sender: the thread that takes batches from the spool, posts them, and
 * settles them by the server's answer. Each lane has a route of its own, so
 * that a refusal of one delays no other.
 */
#ifndef STEEP_SENDER_H
#define STEEP_SENDER_H

#include "answer.h"
#include "keys.h"
#include "outgoing.h"
#include "post.h"
#include "spool.h"

enum {
    SENDER_STOP_MS = 4000, /* for the last batches; the whole shutdown takes at most 5 s */
    SENDER_DETAIL_BYTES = 512,
};

/* What is known about sending a lane's events. */
struct route {
    struct lane lane;  /* as it was last read */
    int64_t next;      /* serial from which to load; behind the last event it begins anew */
    bool is_flushing;  /* send what is there without waiting for more */
    size_t limit;      /* events in a batch: max_events, or fewer after a refusal */
    size_t count;      /* events of the batch that is to be sent again, or 0 */
    unsigned failures; /* in a row */
    unsigned refusals; /* in a row, of events that were sent alone for the first time */
    int64_t lap;       /* how many batches had been accepted when it last began anew */
    bool is_working;   /* some were since the time before */
    int64_t since;     /* clock_ms of the first pending event, or 0 */
    int64_t retry_at;  /* clock_ms, or 0 */
    int64_t tried_at;
};

struct sender {
    struct spool *spool;
    struct post *post;
    const struct keys *keys;
    size_t max_events; /* in a batch */
    int64_t interval_ms;
    int wake; /* eventfd: wakes the main thread after events were removed, and at the end */

    /* Used by the thread alone. */
    struct outgoing *outgoing;
    struct answer answer;
    struct route *routes;
    size_t route_count;
    bool has_failed; /* to read the lanes */
    char signature[KEYS_SIGNATURE_TEXT_BYTES + 1];

    /* Guarded by the spool's lock; changes are signalled by its condition. */
    bool flush_now;    /* send all that is pending */
    bool retry_now;    /* end the current delays */
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
