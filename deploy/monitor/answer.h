/* Decides from a response what to do with the batch, and how long to wait before a retry. */
#ifndef STEEP_ANSWER_H
#define STEEP_ANSWER_H

#include "base/error.h"
#include "event/batch.h"
#include "post.h"

#include <stdint.h>
#include <time.h>

enum {
    ANSWER_SLOW_RETRY_MS = 60 * 1000, /* until somebody fixes the configuration */
    ANSWER_MIN_RETRY_AFTER_MS = 1000, /* a shorter Retry-After counts as this */
    ANSWER_MAX_RETRY_AFTER_MS = 3600 * 1000,
    ANSWER_MIN_BACKOFF_MS = 1000,
    ANSWER_MAX_BACKOFF_MS = 300 * 1000,
    ANSWER_CODE_BYTES = 64,
    ANSWER_MESSAGE_BYTES = 200,
};

enum answer_action {
    ANSWER_STORED,        /* done with the batch */
    ANSWER_HALVE,         /* send fewer events; try a single one again after the others */
    ANSWER_REJECT_LISTED, /* reject the listed events, send the others again */
    ANSWER_RETRY,         /* send the same batch again */
};

struct answer_rejection {
    size_t index; /* in the batch, ascending */
    char code[ANSWER_CODE_BYTES];
    char message[ANSWER_MESSAGE_BYTES];
};

struct answer {
    int status; /* HTTP status; 0 if no response arrived */
    enum answer_action action;
    int64_t retry_ms;                   /* of ANSWER_RETRY: the delay, or -1 to back off */
    const char *detail;                 /* what happened; static storage */
    char code[ANSWER_CODE_BYTES];       /* the server's error code, else http_STATUS */
    char message[ANSWER_MESSAGE_BYTES]; /* the server's or libcurl's; may be empty */
    size_t rejected_count;
    struct answer_rejection rejected[BATCH_EVENTS];
};

/* Evaluates the response to a batch of so many events. now: for a Retry-After date. */
void answer_read(const struct post_response *response, size_t events, time_t now,
                 struct answer *answer);

/*
 * Parses Retry-After (RFC 9110, section 10.2.3): seconds, or an HTTP date in any
 * of the three formats. Returns milliseconds from now, 1 s to 1 h; -1 if invalid.
 */
int64_t answer_retry_after(const char *text, time_t now);

/* The delay after so many failures in a row (1, 2, …): random, up to 1, 2, 4 … 300 s. */
int64_t answer_backoff(unsigned failures);

#endif
