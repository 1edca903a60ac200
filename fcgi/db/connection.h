/*
 * A connection to PostgreSQL: made when it is needed, and dropped when it is in
 * doubt. Only this file, hosts.c, statement.c and database.c call libpq.
 */
#ifndef STEEP_CONNECTION_H
#define STEEP_CONNECTION_H

#include "base/attributes.h"

#include <stdbool.h>
#include <stdint.h>

enum { CONNECTION_DETAIL_BYTES = 200 };

/* How long a call waits for an absent database; shared by a pool's connections. */
struct connection_limits {
    int first_connect_ms; /* for the first attempt to connect */
    int wait_ms;          /* for further attempts, from the beginning of the call */
    /* Told that the database is away, and that it is back; NULL for nobody. */
    void (*note_away)(void *context, bool is_away);
    void *context;
    bool prefers_primary; /* see hosts_choose */
};

struct connection {
    const char *name; /* shown in pg_stat_activity and in the log */
    struct connection_limits *limits;
    int64_t give_up;     /* clock_ms: of the next call; 0 for wait_ms from its beginning */
    int serial;          /* of the connection: how many there have been */
    int host, epoch;     /* its number, and the host's epoch when it was made: see hosts.h */
    bool is_second;      /* another kind of server is preferred: see hosts.h */
    bool is_for_standby; /* it was made to a standby */
    int64_t made_at;     /* clock_ms */
    int unreplicated;    /* commits that did not wait for their synchronous standby, of all time */
    struct pg_conn *pg;  /* libpq's PGconn: open, as far as we know, or NULL */
    bool was_open;       /* there has been one before */
    bool is_listening;   /* LISTEN succeeded on it */
    char logged[CONNECTION_DETAIL_BYTES]; /* the outage's line in the log; "" for none */
};

/* One call's wait for a connection. */
struct connection_wait {
    int64_t first;   /* clock_ms: the end of the first attempt */
    int64_t give_up; /* clock_ms: of all; neither is after the deadline */
};

struct connection_wait connection_begin_wait(const struct connection *connection, int64_t deadline);

/*
 * Connects unless the connection is open: one attempt, and others after pauses until
 * wait->give_up. False if there is no connection.
 */
bool connection_ensure(struct connection *connection,
                       const struct connection_wait *wait) MUST_CHECK;

/* Tells the pool that the database is away, or back. */
void connection_note_away(const struct connection *connection, bool is_away);

/* Whether the host must not be used any more (hosts.h): do not wait for its answer. */
bool connection_is_left(const struct connection *connection);

/*
 * Waits until the socket is ready for some of poll(2)'s events; false at the time until, or when
 * the host is left.
 */
bool connection_await(const struct connection *connection, short events, int64_t until);

/*
 * Whether the server is a standby, as far as is known without a round trip: one that was
 * promoted says so with its next answer.
 */
bool connection_is_on_standby(const struct connection *connection);

/* Closes a connection that is lost or in doubt, and logs why; why is NULL for no line. */
void connection_drop(struct connection *connection, const char *why);

/* Logs that the database answers again, if an outage was logged. */
void connection_log_back(struct connection *connection);

#endif
