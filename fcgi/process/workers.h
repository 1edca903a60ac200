/*
 * The worker threads: each takes a connection with a request, answers it, and comes
 * back for the next one.
 */
#ifndef STEEP_WORKERS_H
#define STEEP_WORKERS_H

#include "base/attributes.h"
#include "process/worker.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct workers;

/* What all workers have in common. Everything that it points to must outlive them. */
struct workers_plan {
    const char *name;  /* of their connections, in pg_stat_activity */
    const char *event; /* of their lines in the log */
    const struct config *config;
    struct keyring *keyring;
    void (*answer)(struct worker *worker, struct request *request); /* see service.h */
    int listener;                                                   /* non-blocking */
    int stop_fd; /* written if they can't be started, for the other threads */
};

/* Starts plan->config->workers threads. NULL if they can't be started, after a line in the log. */
struct workers *workers_start(const struct workers_plan *plan);

int workers_count(const struct workers *workers);

/* How many of them have a request in hand. */
int workers_busy(const struct workers *workers);

/* How many connections to the database they share. */
int workers_connections(const struct workers *workers);

/* Milliseconds since the oldest request in hand began, or last made progress; 0 for none. */
int64_t workers_longest_ms(const struct workers *workers);

/*
 * Lets them finish the requests in hand and those that nginx sends on connections that it
 * keeps (connections.h), and waits for their end until a moment of clock_ms; false if some
 * go on. May be called again.
 */
bool workers_join(struct workers *workers, int64_t until) MUST_CHECK;

/* Frees workers that have been joined; takes NULL. */
void workers_free(struct workers *workers);

#endif
