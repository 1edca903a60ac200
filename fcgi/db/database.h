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

enum { DATABASE_REQUEST_BYTES = 64, DATABASE_SQLSTATE_BYTES = 5 };

enum database_verdict {
    DATABASE_DONE,
    DATABASE_REFUSED, /* the server calls the data invalid, see sqlstate.h */
    DATABASE_AWAY,    /* not reached, no answer in time, or short of a resource */
    DATABASE_FAILED,  /* anything else: a fault of the program or of the installation */
};

/* A parameter, sent in binary format, so that no byte in it ends it early. */
struct database_parameter {
    enum database_type { DATABASE_TEXT, DATABASE_TEXT_ARRAY, DATABASE_INT4 } type;
    const void *value; /* NULL for an SQL NULL; an int4 in network byte order */
    size_t length;     /* bytes, below 1 GiB */
};

/* The outcome of a request's statements. It belongs to the request, not to the connection. */
struct database_record {
    char request[DATABASE_REQUEST_BYTES + 1];   /* its id, or "" */
    char sqlstate[DATABASE_SQLSTATE_BYTES + 1]; /* of its last statement that failed; "" for none */
    int64_t spent_us; /* in its statements, waits included; -1: it had none */
};

/*
 * Begins a record. The id is copied. It becomes part of SQL text: one that has other
 * characters than letters, digits and hyphens, or is too long, counts as none.
 */
void database_record_begin(struct database_record *record, const char *id);

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
 * record is the request's, or NULL. With one, the statement's text ends in a comment with
 * the request's id, which pg_stat_activity shows.
 */
enum database_verdict database_call(struct database *db, struct database_record *record,
                                    const char *sql, const struct database_parameter *parameters,
                                    int count, int64_t deadline) MUST_CHECK;

/*
 * If a statement of the request failed, makes PostgreSQL log the request's id and the
 * SQLSTATE: the settings of the programs' roles keep the errors themselves out of its
 * log, since they could quote data. Takes one round trip then, until deadline at most;
 * does nothing without a connection.
 */
void database_log_failure(struct database *db, const struct database_record *record,
                          int64_t deadline);

/* Frees the rows and the SQLSTATE of the last statement. */
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
 * later connection. Where the server has none (a standby, a pooler) that is logged, and
 * the caller has to poll. channel must outlive the connection.
 */
void database_listen(struct database *db, const char *channel);

/*
 * Waits until a notification, a moment of clock_ms, or stop_fd being readable. True
 * after a notification, and when the connection is lost: both are reasons to look.
 */
bool database_wait(struct database *db, int stop_fd, int64_t until);

#endif
