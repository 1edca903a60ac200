/*
 * PostgreSQL: one connection, one statement at a time, each with a deadline.
 * The PG* variables of the environment say where to connect.
 *
 * A statement is repeated if its connection was lost before an answer, so only
 * statements that are harmless to repeat may be sent through here.
 */
#ifndef STEEP_DATABASE_H
#define STEEP_DATABASE_H

#include "base/attributes.h"
#include "db/connection.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database;

/* What remains of the time to a deadline when the server ends a statement. */
enum { DATABASE_MARGIN_MS = 100 };

enum database_verdict {
    DATABASE_DONE,
    DATABASE_REFUSED, /* the server calls the data invalid, see sqlstate.h */
    DATABASE_AWAY,   /* not reached, no answer in time, too old a standby, or short of a resource */
    DATABASE_FAILED, /* anything else: a fault of the program or of the installation */
};

/* A parameter, sent in binary format, so that no byte in it ends it early. */
struct database_parameter {
    enum database_type {
        DATABASE_TEXT,
        DATABASE_TEXT_ARRAY,
        DATABASE_INT4,
        DATABASE_INT4_ARRAY,
        DATABASE_JSONB_ARRAY,
    } type;
    const void *value; /* NULL for an SQL NULL; an int4 in network byte order */
    size_t length;     /* bytes, below 1 GiB */
};

/*
 * Makes a connection that is not open yet. name is what pg_stat_activity
 * shows; it and limits are the caller's and must outlive the connection.
 * NULL if out of memory; the caller frees with database_free.
 */
struct database *database_new(const char *name, struct connection_limits *limits);
void database_free(struct database *db);

/*
 * Runs one statement, and commits it, before deadline (clock_ms). Connects first if need
 * be; resolving a host name may take longer than the deadline, as libpq can't interrupt
 * it. Returns DATABASE_DONE only after the server confirmed the commit; the rows then
 * stay until the next call.
 *
 * The server ends the statement DATABASE_MARGIN_MS before the deadline (statement_timeout);
 * later than that, none begins. If even that gets no answer, the connection is late: the
 * next call closes it, unless database_cancel comes first.
 */
enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline) MUST_CHECK;

/* What the SQL of database_open begins with. */
#define DATABASE_CURSOR_NAME "steep_rows"
#define DATABASE_CURSOR "DECLARE " DATABASE_CURSOR_NAME " NO SCROLL CURSOR FOR "

/* How many rows a cursor gives at once. */
#define DATABASE_PIECE_ROWS 8192

/*
 * The same for a statement whose rows are read in pieces, from one snapshot: it stays open
 * in a transaction, and the rows are the first DATABASE_PIECE_ROWS, or all if there are
 * fewer. sql is DATABASE_CURSOR "SELECT …". If no piece is fetched for idle_ms, the server
 * ends the session.
 */
enum database_verdict database_open(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline, int idle_ms) MUST_CHECK;

/*
 * Fetches the next piece before deadline, in place of the last. It is not repeated: anything
 * but DATABASE_DONE ends the statement.
 */
enum database_verdict database_next(struct database *db, int64_t deadline) MUST_CHECK;

/* Until when the next call waits for an absent database (clock_ms), if not less long. */
void database_give_up_at(struct database *db, int64_t give_up);

/* Whether the last statement's answer is still to come. */
bool database_is_late(const struct database *db);

/*
 * Cancels a late statement and waits for its answer until a moment of clock_ms. Without an
 * answer the connection stays late, and this may be called again: the server still works at
 * the statement. Waits longer while the server does not take the cancel request; a server that
 * can't be reached closes the connection, and so does, of several hosts, one that does not answer.
 */
void database_cancel(struct database *db, int64_t until);

/*
 * Microseconds since 1970: the last statement saw all that was acknowledged until then, if it
 * ran on a standby; INT64_MAX on the primary, where that is the moment it began.
 */
int64_t database_seen_us(const struct database *db);

/* The age of what the last statement saw, in microseconds; 0 on the primary. */
int64_t database_age_us(const struct database *db);

/* Ends the last statement, if it is open, and frees its rows and its SQLSTATE. */
void database_clear(struct database *db);

/* The last statement's SQLSTATE, five characters or "" for none; it stays until the next call. */
const char *database_sqlstate(const struct database *db);

/*
 * Whether the last statement failed because its function is PL/Proxy's and found no shard
 * for its arguments: an empty batch has nothing to hash.
 */
bool database_lacks_shard(const struct database *db);

/* Closes the connection. The next call makes another, which does not count as a reconnect. */
void database_disconnect(struct database *db);

/* The rows of the last statement. Columns are read as the type they have in SQL. */
int database_rows(const struct database *db);
bool database_is_null(const struct database *db, int row, int column);
const char *database_bytes(const struct database *db, int row, int column, size_t *length);
int64_t database_integer(const struct database *db, int row, int column); /* int4 or int8 */

/*
 * Listens for notifications on a channel (LISTEN), from the next call on and on every
 * later connection. A standby has none, and where another server has none (a pooler) that is
 * logged: the caller has to poll. channel must outlive the connection.
 */
void database_listen(struct database *db, const char *channel);

/* Whether notifications arrive on the connection of the last call. */
bool database_is_notified(const struct database *db);

/*
 * Waits until a notification, a moment of clock_ms, or stop_fd being readable. True
 * after a notification, and when the connection is lost: both are reasons to look.
 */
bool database_wait(struct database *db, int stop_fd, int64_t until);

#endif
