/*
 * The sender: a thread that takes batches from the spool to the server, and
 * does not let one go before its answer says what became of it.
 */
#ifndef STEEP_SENDER_H
#define STEEP_SENDER_H

#include "answer.h"
#include "keys.h"
#include "outgoing.h"
#include "post.h"
#include "rejected.h"
#include "spool.h"
#include "status.h"

enum { SENDER_FLUSH_MS = 4000 }; /* for the last flush; the whole stop takes no more than 5 s */

struct sender {
    struct spool *spool;
    struct rejected *rejected;
    struct status *status;
    struct post *post;
    const struct keys *keys;
    size_t most; /* events in a batch */
    int64_t interval_ms;
    int wake; /* an eventfd: written when events were forgotten or set aside, and at the end */

    /* The thread's own. */
    struct outgoing *outgoing;
    struct answer answer;
    size_t limit; /* events in a batch, fewer than most after a 413 */
    unsigned failures;
    char signature[KEYS_SIGNATURE_TEXT_BYTES + 1];

    /* Guarded by the spool's lock, and told by its condition. */
    uint64_t flush_to; /* events before this serial are sent without waiting for more */
    bool is_hurried;   /* a pause is to end now */
    bool is_finishing; /* no more events come */
    bool is_stopping;  /* at until, all is over */
    bool is_ended;
    int64_t until;
    pthread_t thread;
};

/* Starts the thread; what is borrowed must outlive it. False: no memory. */
bool sender_start(struct sender *sender) MUST_CHECK;

/* Sends what waits now, without waiting for more; a pause between tries is cut short if told to. */
void sender_flush(struct sender *sender, bool is_hurried);

/* No more events come: ends once all are sent, or soon after a failure. */
void sender_finish(struct sender *sender);

/* Ends within SENDER_FLUSH_MS, after a last flush. */
void sender_stop(struct sender *sender);

bool sender_is_ended(struct sender *sender);
void sender_join(struct sender *sender);

#endif
