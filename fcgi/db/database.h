/*
 * PostgreSQL: one connection, one statement at a time, each with a deadline.
 * PG* in the environment is what says where to connect.
 *
 * A statement is repeated when its connection was lost before an answer, so
 * only statements that can be repeated harmlessly are sent through here.
 */
#ifndef STEEP_DATABASE_H
#define STEEP_DATABASE_H

#include "db/connection.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database;

enum { DATABASE_REQUEST_BYTES = 64 };

enum database_verdict {
    DATABASE_DONE,
    DATABASE_REFUSED, /* it calls the data bad, see sqlstate.h */
    DATABASE_AWAY,    /* not reached, did not answer in time, or is short of something */
    DATABASE_FAILED,  /* anything else: a fault of ours, or of the installation */
};

/* A parameter, sent in binary format, so that no byte in it ends it early. */
struct database_parameter {
    enum database_type { DATABASE_TEXT, DATABASE_TEXT_ARRAY, DATABASE_INT4 } type;
    const void *value; /* NULL for an SQL NULL; an int4 in network byte order */
    size_t length;     /* bytes, below 1 GiB */
};

/*
 * Makes a connection that is not open yet. name is what pg_stat_activity
 * shows; it and patience are the caller's and must outlive the connection.
 * NULL when memory is short; the caller frees with database_free.
 */
struct database *database_new(const char *name, struct connection_patience *patience);
void database_free(struct database *db);

/*
 * Says for which request the next statements are: their text ends in a comment
 * with its id, which pg_stat_activity shows. The id is copied. As it becomes a part
 * of SQL, one that is not of letters, digits and hyphens counts as none.
 */
void database_set_request(struct database *db, const char *id);

/*
 * Where a statement of that request failed, has PostgreSQL write the request's id
 * and the SQLSTATE to its log: in the errors themselves the programs' roles have it
 * leave out all that could quote data. Takes a round trip then, until deadline at
 * the most; without a connection it does nothing.
 */
void database_log_failure(struct database *db, int64_t deadline);

/*
 * Runs one statement, and commits it, before deadline (clock_ms). Connects
 * first where need be; a host name that has to be resolved may take longer than
 * the deadline, as libpq's look-up can't be interrupted. DATABASE_DONE is said only after the
 * server confirmed the commit; the rows then stay until the next call.
 */
enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline) __attribute__((warn_unused_result));

/* Microseconds spent in the calls for this request, waits included; -1 where there were none. */
int64_t database_spent_us(const struct database *db);

/* Frees the rows of the last statement, and forgets what it came to. */
void database_clear(struct database *db);

/* The last statement's SQLSTATE, five characters or "" for none; it stays until the next call. */
const char *database_sqlstate(const struct database *db);

/* The rows of the last statement. Columns are read as the type they have in SQL. */
int database_rows(const struct database *db);
bool database_is_null(const struct database *db, int row, int column);
const char *database_bytes(const struct database *db, int row, int column, size_t *length);
int64_t database_integer(const struct database *db, int row, int column); /* int4 or int8 */

/*
 * Asks to be told of a channel's notifications from the next call on, over
 * every connection to come. A standby and a pooler have none; that is logged,
 * and the caller has to look by itself. channel must outlive the connection.
 */
void database_listen(struct database *db, const char *channel);

/*
 * Waits for a notification until a moment of clock_ms, or until stop_fd is
 * readable. Returns true after a notification, and when the connection is
 * lost: both are reasons to look.
 */
bool database_wait(struct database *db, int stop_fd, int64_t until);

#endif
