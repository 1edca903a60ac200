/*
 * Health and metrics of the process, on a listener and a thread of its own, so
 * that it answers while all workers are busy. FastCGI, like the requests; the
 * path is SCRIPT_NAME, with the program's endpoint as its last part:
 *
 *   /healthz/   200: the process answers
 *   /readyz/    200: the keyring was read in the last seconds, and not all recent
 *               requests failed in the database (results.h); 503 otherwise, and
 *               while the process stops
 *   /metrics/   counters and state in Prometheus' text format (exposition.h);
 *               nginx has a loopback listener for it
 *
 * GET and HEAD; 404 for any other path.
 */
#ifndef STEEP_HEALTH_H
#define STEEP_HEALTH_H

#include "auth/keyring.h"
#include "auth/refresh.h"
#include "process/exposition.h"
#include "process/workers.h"

struct health;

/* What it reports on. Only read; must outlive the thread. */
struct health_view {
    const struct exposition_program *program;
    struct keyring *keyring;
    const struct refresh *refresh;
    const struct workers *workers;
    int stop_fd; /* readable once the process stops */
};

/* Starts the thread on a non-blocking listener; NULL if that fails. */
struct health *health_start(const struct health_view *view, int listener);

/* Ends the thread and frees; takes NULL. */
void health_stop(struct health *health);

#endif
