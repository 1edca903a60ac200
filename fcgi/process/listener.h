/* The listening sockets that the process inherits. */
#ifndef STEEP_LISTENER_H
#define STEEP_LISTENER_H

#include <stdbool.h>

struct listeners {
    int requests;
    int status; /* for questions about the process itself, see status.h; -1 for none */
};

/*
 * Takes what LISTEN_FDS hands over where it is meant for this process
 * (sd_listen_fds(3)): one socket, for requests, or two that LISTEN_FDNAMES calls
 * "requests" and "status", in any order. Else standard input, for requests.
 * Makes them non-blocking. False, after a line in the log, where none of this
 * can be had.
 */
bool listeners_take(struct listeners *listeners) __attribute__((warn_unused_result));

#endif
