/*
 * What to do about an answer: the table of what a server can say to a batch,
 * and how long to wait before the next try.
 */
#ifndef STEEP_ANSWER_H
#define STEEP_ANSWER_H

#include "base/error.h"
#include "event/batch.h"
#include "post.h"

#include <stdint.h>
#include <time.h>

enum {
    ANSWER_SLOW_MS = 60 * 1000,   /* where somebody has to do something first */
    ANSWER_RETRY_LEAST_MS = 1000, /* whatever Retry-After says */
    ANSWER_RETRY_MOST_MS = 3600 * 1000,
    ANSWER_BACKOFF_FIRST_MS = 1000,
    ANSWER_BACKOFF_MOST_MS = 300 * 1000,
    ANSWER_CODE_BYTES = 64,
    ANSWER_MESSAGE_BYTES = 200,
    ANSWER_DETAIL_BYTES = 400,
};

enum answer_action {
    ANSWER_FORGET,    /* it is stored */
    ANSWER_HALVE,     /* send less; what is a single event already is set aside */
    ANSWER_SET_ASIDE, /* the whole batch */
    ANSWER_SET_ASIDE_LISTED,
    ANSWER_WAIT, /* and send the same again */
};

struct answer_rejection {
    size_t index; /* in the batch, ascending */
    char code[ANSWER_CODE_BYTES];
    char message[ANSWER_MESSAGE_BYTES];
};

struct answer {
    enum answer_action action;
    int64_t wait_ms;                  /* of ANSWER_WAIT: exactly this; or -1: back off */
    char detail[ANSWER_DETAIL_BYTES]; /* what happened, for people; empty for ANSWER_FORGET */
    char code[ANSWER_CODE_BYTES];     /* the server's, or the program's word for it */
    char message[ANSWER_MESSAGE_BYTES];
    size_t rejected_count;
    struct answer_rejection rejected[BATCH_EVENTS];
};

/* Judges the answer to a batch of so many events, at a time by the wall's clock. */
void answer_judge(const struct post_answer *post, size_t events, time_t now, struct answer *answer);

/*
 * Reads Retry-After (RFC 9110, section 10.2.3): seconds, or an HTTP date in any
 * of the three forms. Milliseconds from now, 1 s to 1 h; -1 for anything else.
 */
int64_t answer_retry_after(const char *text, time_t now);

/* The pause after so many failures in a row (1, 2, …): full jitter, up to 1, 2, 4 … 300 s. */
int64_t answer_backoff(unsigned failures);

#endif
