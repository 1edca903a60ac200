/*
 * One worker's view of the request that it has in hand: what it works with, the
 * request's deadline, its counters and its line in the log.
 */
#ifndef STEEP_WORKER_H
#define STEEP_WORKER_H

#include "auth/keyring.h"
#include "base/config.h"
#include "base/log.h"
#include "db/group.h"
#include "db/pool.h"
#include "db/record.h"
#include "http/reply.h"
#include "http/request.h"
#include "process/connections.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* config and keyring are shared by all workers. */
struct worker {
    const char *event; /* the name of a request's line in the log */
    const struct config *config;
    struct keyring *keyring;
    struct pool *pool;
    struct connections *connections;
    struct request *request; /* in hand; NULL if it was given away */
    struct request *spare;   /* for the next one then */
    atomic_llong busy_since; /* clock_ms of the request in hand, or its last progress; 0 for none */
    struct database *db;     /* the connection that it has now; NULL for none */
    struct record record;    /* of the request in hand */
    struct group_failure failure; /* of the group that it led; ids is NULL for none */
    struct buffer reply;
};

/* When a request must have its answer from the database (clock_ms). */
int64_t worker_deadline(const struct worker *worker, const struct request *request);

/* ERROR_UNAVAILABLE if a request waited past its deadline for a worker: its sender has given up. */
enum error worker_check_deadline(const struct worker *worker,
                                 const struct request *request) MUST_CHECK;

/*
 * Runs a statement for the request, on a connection of the pool. The worker keeps the
 * connection, and the rows, until worker_release, which must follow; after a failure it keeps
 * the connection until worker_log_failure, for which another might come too late. It keeps
 * none that is late.
 */
enum database_verdict worker_call(struct worker *worker, const char *sql,
                                  const struct database_parameter *parameters, int count,
                                  int64_t deadline) MUST_CHECK;
void worker_release(struct worker *worker);

/*
 * Waits for the connection of the next statement, which worker_call and worker_open do by
 * themselves: for a caller that has something to do between the wait and the statement.
 */
enum database_verdict worker_connect(struct worker *worker, int64_t deadline) MUST_CHECK;

/*
 * As worker_call, for a statement whose rows are read in pieces: database_open, and then
 * database_next.
 */
enum database_verdict worker_open(struct worker *worker, const char *sql,
                                  const struct database_parameter *parameters, int count,
                                  int64_t deadline) MUST_CHECK;
enum database_verdict worker_next(struct worker *worker, int64_t deadline) MUST_CHECK;

/*
 * Notes that the request in hand makes progress, though it takes longer than a request may:
 * the watchdog and the age of the oldest request count from then on.
 */
void worker_note_progress(struct worker *worker);

/*
 * Gives the request in hand to the caller, for any worker to answer it later; NULL if out of
 * memory. It must be ended by worker_finish or put back by worker_put_back.
 */
struct request *worker_give_away(struct worker *worker) MUST_CHECK;

/* Has any worker answer a request that was given away from its beginning. */
void worker_put_back(struct worker *worker, struct request *request);

/*
 * Ends the exchange with nginx about a request, in hand or given away. The connection, if
 * nginx keeps it, waits for the next request without this worker.
 */
void worker_finish(struct worker *worker, struct request *request);

/*
 * If a statement of the request failed, makes PostgreSQL log the request's id and the
 * SQLSTATE: the settings of the programs' roles keep the errors themselves out of its
 * log, since they could quote data. The leader of a group does it for all of them. It takes
 * 2 s at most.
 */
void worker_log_failure(struct worker *worker);

/* The error for a verdict: none, 503 or 500. What a refused batch is, ingest.c finds out. */
enum error worker_error(enum database_verdict verdict);

/* The level of a line about it: error for a 500, warning for a 503, info for the rest. */
enum log_level worker_log_level(enum error error);

/* Counts a request whose reply was sent, and notes how it fared in the database. */
void worker_count(const struct worker *worker, const struct request *request, enum error error);

/*
 * A request's line in the log: the fields that both programs begin and end it with. False
 * if the request has none: without valid credentials there is one a second (strangers.h).
 * fate is what became of the reply: NULL if it was sent, "lost" if the client left before,
 * "broken" if it was begun and could not be completed.
 */
bool worker_log_begin(struct log_line *line, const struct worker *worker,
                      const struct request *request, enum error error,
                      bool is_authenticated) MUST_CHECK;
void worker_log_end(struct log_line *line, const struct request *request, const char *fate);

/*
 * The lines about requests that had none, of kinds that had no line for a while (strangers.h);
 * at the process's end, of all kinds.
 */
void worker_log_left_out(const char *event, bool is_end);

#endif
