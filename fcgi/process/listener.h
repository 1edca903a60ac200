/* The listening sockets that the process inherits. */
#ifndef STEEP_LISTENER_H
#define STEEP_LISTENER_H

#include "base/attributes.h"

#include <stdbool.h>

struct listeners {
    int requests;
    int health; /* for /healthz, /readyz and /metrics, see health.h; -1 for none */
};

/*
 * Takes the sockets that LISTEN_FDS passes to this process (sd_listen_fds(3)): one,
 * for requests, or two that LISTEN_FDNAMES calls "requests" and "health", in any
 * order. Without LISTEN_FDS, standard input is the socket for requests. Makes them
 * non-blocking. False, after a line in the log, if they are not listening sockets.
 */
bool listeners_take(struct listeners *listeners) MUST_CHECK;

#endif
