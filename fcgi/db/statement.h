/*
 * One try at a statement, on an open connection: prepared once for each connection, and sent
 * in one pipeline behind its time limit. Only database.c, which repeats it, calls this.
 */
#ifndef STEEP_STATEMENT_H
#define STEEP_STATEMENT_H

#include "base/attributes.h"
#include "db/connection.h"
#include "db/database.h"
#include "db/sqlstate.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    STATEMENT_PREPARED_MOST = 16, /* more statements than a program has */
    STATEMENT_STEPS_MOST = 9,
};

enum statement_outcome {
    STATEMENT_DONE,
    STATEMENT_ERROR, /* the server answered with an error, see sqlstate */
    STATEMENT_LOST,  /* the connection is gone, and the statement's outcome unknown */
    STATEMENT_LATE,  /* no answer before the deadline */
};

/* The last statement of a connection, and those that are prepared on it; all 0 at first. */
struct statement {
    struct pg_result *result;          /* libpq's PGresult: the rows, or the error; NULL for none */
    char sqlstate[SQLSTATE_BYTES + 1]; /* "" for none */
    bool is_prepared;                  /* how it was sent */
    uint64_t prepared[STATEMENT_PREPARED_MOST]; /* by hash */
    int prepared_count;
    int prepared_on; /* the connection's serial */
    /* What was sent and not yet answered: the hash of a statement to prepare, or 0. */
    uint64_t steps[STATEMENT_STEPS_MOST];
    int step_count;
    int steps_done;
    /* On a standby: the step that asks for the age of its data, -1 for none, and its answer. */
    int age_step;
    int64_t seen_us;  /* since 1970: what was acknowledged until then is seen */
    int64_t age_us;   /* INT64_MAX if unknown; -1 on the primary */
    int unreplicated; /* the connection's, at the beginning */
};

/*
 * Sends a statement and collects its answer. The server ends it DATABASE_MARGIN_MS before
 * deadline (clock_ms). STATEMENT_DONE only after the server confirmed the commit, which it also
 * does where its wait for a synchronous standby was cancelled: that is STATEMENT_LOST.
 */
enum statement_outcome statement_run(struct statement *statement,
                                     const struct connection *connection, const char *sql,
                                     const struct database_parameter *parameters, int count,
                                     int64_t deadline) MUST_CHECK;

/*
 * The same for a cursor: begins a transaction, declares the cursor (sql is
 * DATABASE_CURSOR "SELECT …") and fetches its first rows. The server also ends the session
 * after idle_ms without a statement. After an error the transaction is over.
 */
enum statement_outcome statement_open(struct statement *statement,
                                      const struct connection *connection, const char *sql,
                                      const struct database_parameter *parameters, int count,
                                      int64_t deadline, int idle_ms) MUST_CHECK;

/* Fetches the cursor's next rows. After an error the transaction is over. */
enum statement_outcome statement_fetch(struct statement *statement,
                                       const struct connection *connection,
                                       int64_t deadline) MUST_CHECK;

/* Ends the transaction, and drops the rows. */
enum statement_outcome statement_close(struct statement *statement,
                                       const struct connection *connection,
                                       int64_t deadline) MUST_CHECK;

/* Collects the rest of an answer that was STATEMENT_LATE. */
enum statement_outcome statement_collect(struct statement *statement,
                                         const struct connection *connection,
                                         int64_t deadline) MUST_CHECK;

/*
 * Whether to send it again: its error says that a prepared statement is not what it was. A
 * pooler gave us another connection (42P05, 26000), or the result has another type (0A000).
 * From then on no connection prepares statements; that is logged once.
 */
bool statement_retry_unprepared(const struct statement *statement) MUST_CHECK;

/* Frees the rows and the SQLSTATE. */
void statement_clear(struct statement *statement);

#endif
