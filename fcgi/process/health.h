/*
 * What the process says about itself, on a listener and a thread of its own, so
 * that it answers when all workers are busy. FastCGI, like the requests; the
 * path is SCRIPT_NAME, with the service's endpoint behind it:
 *
 *   /healthz/   200: the process answers
 *   /readyz/    200: it has its keyring and reached the database in the last
 *               seconds; else 503, also while it stops
 *   /metrics/   what metrics.h counts, and the state of the process, in
 *               Prometheus' text format; for this machine alone, as nginx sees to
 *
 * GET and HEAD; 404 for any other path.
 */
#ifndef STEEP_STATUS_H
#define STEEP_STATUS_H

#include "auth/keyring.h"
#include "auth/refresh.h"
#include "process/service.h"
#include "process/workers.h"

struct status;

/* What it looks at; all of it is only read, and must outlive the thread. */
struct status_view {
    const struct service *service;
    struct keyring *keyring;
    const struct refresh *refresh;
    const struct workers *workers;
    int stop_fd; /* readable once the process stops */
};

/* Starts the thread on a non-blocking listener; NULL when that fails. */
struct status *status_start(const struct status_view *view, int listener);

/* Ends the thread and frees; takes NULL. */
void status_stop(struct status *status);

#endif
