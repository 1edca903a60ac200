/*
 * Writes the counters of metrics.h, and the state of the process, in Prometheus'
 * text format (exposition format 0.0.4). No label value ever comes from a client.
 */
#ifndef STEEP_EXPOSITION_H
#define STEEP_EXPOSITION_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is the same for the life of the process. */
struct exposition_program {
    const char *name;          /* label "program" of steep_build_info */
    const char *endpoint;      /* label "endpoint" of everything */
    bool takes_batches;        /* write the counters of batches and events */
    struct error_range errors; /* the program's own, besides those that every program has */
};

/* Gauges, as they are at the moment of asking. */
struct exposition_state {
    bool is_ready;
    int workers;
    int workers_busy;
    int connections;            /* to the database, that the workers share */
    int64_t longest_ms;         /* age of the oldest request in hand; 0 for none */
    int64_t keyring_age_ms;     /* since the last read from the database; -1: not read yet */
    size_t keyring_environment; /* entries from the environment */
    size_t keyring_database;    /* entries from the database */
    int64_t started;            /* Unix time */
};

/* A scrape between two additions may include one of them and not the other. */
void exposition_write(struct buffer *out, const struct exposition_program *program,
                      const struct exposition_state *state);

#endif
