/*
 * Batches of events, stored as they come: one alone by the data model's
 * bulk_insert_events, those that waited for a connection together, by
 * bulk_insert_batches in one statement and one commit.
 */
#ifndef STEEP_GROUP_H
#define STEEP_GROUP_H

#include "db/database.h"
#include "db/pool.h"
#include "db/record.h"
#include "db/sqlstate.h"

#include <stddef.h>
#include <stdint.h>

/* The requests that shared a statement which failed, for the leader's worker to report. */
struct group_failure {
    unsigned char *ids; /* a text[] in binary form, which the caller frees with free; or NULL */
    size_t length;      /* bytes */
    char sqlstate[SQLSTATE_BYTES + 1];
};

/* A batch that its worker has checked. */
struct group_batch {
    const char *body; /* a JSON array, which stays as it is until group_store returns */
    size_t length;    /* bytes */
    size_t events;    /* 1 or more */
    int64_t deadline; /* clock_ms */
    struct record *record;

    /* The outcome. */
    enum database_verdict verdict;
    int64_t inserted; /* how many of its events are new */
    char sqlstate[SQLSTATE_BYTES + 1];
    bool is_reported; /* its id is in the leader's failure */

    /*
     * For the report, after a statement failed: the leader's connection, which the caller
     * gives back, or NULL; and the others that it failed for.
     */
    struct database *db;
    struct group_failure failure;
};

/*
 * Stores a batch, all of its events or none, and returns at its deadline at the latest,
 * but for the time that a connection attempt takes (see database_call). Its verdict is
 * DATABASE_DONE only after the commit was confirmed, and DATABASE_REFUSED only for its own
 * events. A batch that is DATABASE_AWAY may be stored all the same.
 */
void group_store(struct pool *pool, struct group_batch *batch);

#endif
