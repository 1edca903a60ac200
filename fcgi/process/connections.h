/*
 * The connections from nginx: new ones, and those that nginx keeps for its next request.
 * A connection waits here until it is readable, and no worker waits with it. All
 * functions but connections_drain and connections_free may be called by any thread.
 */
#ifndef STEEP_CONNECTIONS_H
#define STEEP_CONNECTIONS_H

#include "base/attributes.h"
#include "http/request.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CONNECTIONS_MOST_IDLE = 256,
    CONNECTIONS_END = -1,
    CONNECTIONS_PUT_BACK = -2,
};

struct connections;

/* listener is non-blocking, and stays the caller's. NULL if out of memory or descriptors. */
struct connections *connections_new(int listener);

/*
 * Waits for a connection on which something has arrived, and gives it to the caller alone:
 * a request, or its end. The thread that came last is woken first, so that as few as
 * possible are used. CONNECTIONS_PUT_BACK when a request was put back, CONNECTIONS_END when
 * it is time to end; then some may have been put back as well.
 */
int connections_await(struct connections *connections);

/*
 * Whether one more connection may be kept: false with CONNECTIONS_MOST_IDLE of them, or
 * when draining. To be called before nginx has the end of an answer, and if true followed
 * by connections_keep.
 */
bool connections_reserve(struct connections *connections) MUST_CHECK;

/* Keeps a connection, after connections_reserve; a negative fd only gives the place back. */
void connections_keep(struct connections *connections, int fd);

/*
 * Puts back a request that was accepted, for any thread to answer it from its beginning.
 * connections_take_back gives it to the caller, or returns NULL if there is none (any more).
 */
void connections_put_back(struct connections *connections, struct request *request);
struct request *connections_take_back(struct connections *connections) MUST_CHECK;

/*
 * Accepts no more connections, waits until nginx has closed those that it keeps, and
 * tells the threads to end. Only nginx can close one safely: it may have begun to send a
 * POST, which it never repeats. False if some were open at the given moment of clock_ms;
 * to be called again.
 */
bool connections_drain(struct connections *connections, int64_t until) MUST_CHECK;

/* Frees them once the threads have ended; takes NULL. */
void connections_free(struct connections *connections);

#endif
