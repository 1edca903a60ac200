/*
 * A connection to PostgreSQL: made when it is needed, dropped when it is in
 * doubt, with callers that wait for it and callers that don't. Together with
 * database.c this is all that calls libpq.
 */
#ifndef STEEP_CONNECTION_H
#define STEEP_CONNECTION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { CONNECTION_REPORT_BYTES = 200 };

/* How long callers put up with an absent database; shared by a program's connections. */
struct connection_patience {
    int look_ms;      /* for one attempt to connect, which is every caller's */
    int wait_ms;      /* for further attempts, counted from the statement's begin */
    int most_waiting; /* so many callers may wait at once; others give up after the first */
    atomic_int waiting;
};

struct connection {
    const char *name; /* shown in pg_stat_activity and in the log */
    struct connection_patience *patience;
    struct pg_conn *pg;                     /* libpq's PGconn: open, as far as we know, or NULL */
    bool was_open;                          /* there has been one before */
    bool is_asked;                          /* LISTEN was sent over it */
    char reported[CONNECTION_REPORT_BYTES]; /* what the log was told of an outage; "" for none */
};

/* One call's waiting. connection_begin_wait sets it up, connection_end_wait must follow. */
struct connection_wait {
    int64_t patience; /* clock_ms up to which it waits for a connection */
    int64_t deadline; /* clock_ms */
    bool has_turn;    /* it is one of those that may wait */
};

void connection_begin_wait(struct connection_wait *wait, const struct connection *connection,
                           int64_t deadline);
void connection_end_wait(struct connection_wait *wait, struct connection *connection);

/*
 * Sees to a connection. A first, short look is every caller's; to go on
 * looking until patience ends takes a turn. False where there is none.
 */
bool connection_ensure(struct connection *connection, struct connection_wait *wait)
    __attribute__((warn_unused_result));

/* Makes a call one of those that may wait; false when there are enough of them. */
bool connection_take_turn(struct connection *connection, struct connection_wait *wait)
    __attribute__((warn_unused_result));

/* Waits for the socket to be ready for some of poll(2)'s events; false at the moment until. */
bool connection_await(const struct connection *connection, short events, int64_t until);

/* Closes a connection that is lost or in doubt, and logs why; why is NULL for no line. */
void connection_drop(struct connection *connection, const char *why);

/* Logs that the database answers again, if the log was told that it doesn't. */
void connection_report_back(struct connection *connection);

#endif
