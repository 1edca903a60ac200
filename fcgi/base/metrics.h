/*
 * What happened since the process started, in counters and histograms, and their
 * text for Prometheus (exposition format 0.0.4). Any thread may count at any time:
 * that is an atomic addition without a lock or an order. No label's value ever
 * comes from a client.
 */
#ifndef STEEP_METRICS_H
#define STEEP_METRICS_H

#include "base/error.h"
#include "http/reply.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metric {
    /* Batches with a good signature, and their events. */
    METRIC_BATCHES_STORED,
    METRIC_BATCHES_REFUSED,
    METRIC_BATCHES_UNAVAILABLE,
    METRIC_BATCHES_FAILED,
    METRIC_EVENTS_INSERTED,
    METRIC_EVENTS_DUPLICATE,
    METRIC_EVENTS_REFUSED,
    METRIC_EVENTS_NOT_STORED, /* nothing is wrong with them, but their batch was not stored */
    METRIC_FOREIGN_IDS,       /* duplicates whose stored source is another one */

    /* Of all connections to the database, the keyring's included. */
    METRIC_RECONNECTS,
    METRIC_CONNECT_FAILURES,

    METRIC_COUNT
};

enum metrics_histogram {
    METRICS_REQUEST,      /* from nginx's handing over to the reply */
    METRICS_VERIFICATION, /* of a signature, or of a token */
    METRICS_DATABASE,     /* a request's statements, and its waiting for a connection */
    METRICS_HISTOGRAMS
};

void metrics_add(enum metric metric, uint64_t count);
void metrics_observe(enum metrics_histogram histogram, int64_t us);

/* One request that was answered so; one event of a batch that was refused for this. */
void metrics_count_request(enum error error);
void metrics_count_refused(enum error error);

/* What is no count but a state, at the moment of asking. */
struct metrics_state {
    const char *program;
    const char *endpoint;      /* a label of everything else */
    bool takes_batches;        /* whether there are batches and events to speak of */
    struct error_range errors; /* the program's own; besides those that every program has */
    bool is_ready;
    int workers;
    int workers_busy;
    int64_t longest_ms;     /* that one of them has been at its request */
    int64_t keyring_age_ms; /* -1: not read yet */
    size_t keyring_fixed;   /* entries from the environment */
    size_t keyring_read;    /* and from the database */
    int64_t started;        /* Unix time */
};

/* Adds all of it. A scrape between two additions may see the one without the other. */
void metrics_write(struct reply_text *out, const struct metrics_state *state);

#endif
