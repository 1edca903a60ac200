/*
 * A connection to PostgreSQL: made when it is needed, and dropped when it is in
 * doubt. While the database is away some callers wait for it and the others fail
 * at once. Only this file and database.c call libpq.
 */
#ifndef STEEP_CONNECTION_H
#define STEEP_CONNECTION_H

#include "base/attributes.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { CONNECTION_DETAIL_BYTES = 200 };

/* How long callers wait for an absent database; shared by a program's connections. */
struct connection_limits {
    int first_connect_ms; /* for the first attempt to connect, which every caller makes */
    int wait_ms;          /* for further attempts, from the beginning of the call */
    int most_waiting;     /* callers that may make further attempts at once */
    atomic_int waiting;
};

struct connection {
    const char *name; /* shown in pg_stat_activity and in the log */
    struct connection_limits *limits;
    struct pg_conn *pg;                   /* libpq's PGconn: open, as far as we know, or NULL */
    bool was_open;                        /* there has been one before */
    bool is_listening;                    /* LISTEN succeeded on it */
    char logged[CONNECTION_DETAIL_BYTES]; /* the outage's line in the log; "" for none */
};

/* One call's wait for a connection. connection_end_wait must follow connection_begin_wait. */
struct connection_wait {
    int64_t give_up;  /* clock_ms; not after the deadline */
    int64_t deadline; /* clock_ms */
    bool has_turn;    /* it is one of limits->most_waiting */
};

void connection_begin_wait(struct connection_wait *wait, const struct connection *connection,
                           int64_t deadline);
void connection_end_wait(struct connection_wait *wait, struct connection *connection);

/*
 * Connects unless the connection is open. Every caller makes a first, short attempt;
 * further ones, until wait->give_up, take a turn. False if there is no connection.
 */
bool connection_ensure(struct connection *connection, struct connection_wait *wait) MUST_CHECK;

/* Makes the call one of those that may wait; false if there are enough of them. */
bool connection_take_turn(struct connection *connection, struct connection_wait *wait) MUST_CHECK;

/* Waits until the socket is ready for some of poll(2)'s events; false at the time until. */
bool connection_await(const struct connection *connection, short events, int64_t until);

/* Closes a connection that is lost or in doubt, and logs why; why is NULL for no line. */
void connection_drop(struct connection *connection, const char *why);

/* Logs that the database answers again, if an outage was logged. */
void connection_log_back(struct connection *connection);

#endif
