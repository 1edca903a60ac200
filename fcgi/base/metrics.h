/*
 * Counters and histograms of what happened since the process started. Any thread
 * may count at any time: each addition is atomic, without a lock and without an
 * order. process/exposition.h writes them for Prometheus.
 */
#ifndef STEEP_METRICS_H
#define STEEP_METRICS_H

#include "base/error.h"

#include <stdint.h>

enum metric {
    /* Batches with a valid signature, and their events. */
    METRIC_BATCHES_STORED,
    METRIC_BATCHES_REFUSED,
    METRIC_BATCHES_UNAVAILABLE,
    METRIC_BATCHES_FAILED,
    METRIC_EVENTS_INSERTED,
    METRIC_EVENTS_DUPLICATE,
    METRIC_EVENTS_REFUSED,
    METRIC_EVENTS_NOT_STORED, /* the other events of a batch that was not stored */
    METRIC_FOREIGN_IDS,       /* duplicates that are stored under another source */

    METRIC_ANSWERS_SHARED,   /* from the statement of another request */
    METRIC_ANSWERS_STREAMED, /* in parts */
    METRIC_ANSWERS_BROKEN,   /* of these, those that could not be completed */

    METRIC_CONNECTIONS, /* accepted from nginx, which sends several requests on each */

    /* Of all connections to the database, the keyring's included. */
    METRIC_RECONNECTS,
    METRIC_CONNECT_FAILURES,

    METRIC_COUNT
};

enum metrics_histogram {
    METRICS_REQUEST,      /* from the moment nginx passed the request on to the reply */
    METRICS_VERIFICATION, /* of a signature or a token */
    METRICS_DATABASE,     /* a request's statements, including the wait for a connection */
    METRICS_HISTOGRAMS
};

enum { METRICS_BUCKETS = 15 }; /* with an upper bound; one more holds the rest */

struct metrics_distribution {
    const int64_t *bounds_us;              /* METRICS_BUCKETS upper bounds, inclusive */
    uint64_t buckets[METRICS_BUCKETS + 1]; /* not cumulative */
    uint64_t sum_us;
};

void metrics_add(enum metric metric, uint64_t count);
void metrics_observe(enum metrics_histogram histogram, int64_t us);

/* Counts one request by its answer, and one refused event by its reason. */
void metrics_count_request(enum error error);
void metrics_count_refused(enum error error);

uint64_t metrics_count(enum metric metric);
uint64_t metrics_requests(enum error error);
uint64_t metrics_refused(enum error error);
struct metrics_distribution metrics_distribution(enum metrics_histogram histogram);

#endif
