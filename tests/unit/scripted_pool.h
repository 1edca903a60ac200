/*
 * A pool whose database answers as a test says, in orders that no server can be made to keep.
 * Stands in for db/database.c, which the linker then leaves out.
 */
#ifndef STEEP_SCRIPTED_POOL_H
#define STEEP_SCRIPTED_POOL_H

#include "db/pool.c" // NOLINT(bugprone-suspicious-include)
#include "unit.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS_MOST = 256 };

struct database {
    struct connection_limits *limits;
    int64_t give_up;
    bool is_late;
    const char *sqlstate;
    int rows;
    int64_t cells[ROWS_MOST][2];
    bool is_null[ROWS_MOST]; /* the second cell */
};

/* Answers a call; set by the test. */
static enum database_verdict (*answer)(struct database *db, const char *sql,
                                       const struct database_parameter *parameters,
                                       int64_t deadline);

/* How often a late connection must be cancelled until its answer arrives. */
static atomic_int cancels_needed;

struct database *database_new(const char *name, struct connection_limits *limits)
{
    struct database *db = calloc(1, sizeof(*db));

    (void)name;
    assert_non_null(db);
    db->limits = limits;
    db->sqlstate = "";
    return db;
}

void database_free(struct database *db)
{
    free(db);
}

void database_clear(struct database *db)
{
    db->rows = 0;
    memset(db->is_null, 0, sizeof(db->is_null));
    db->sqlstate = "";
}

enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline)
{
    (void)count;
    database_clear(db);
    return answer(db, sql, parameters, deadline);
}

void database_give_up_at(struct database *db, int64_t give_up)
{
    db->give_up = give_up;
}

bool database_is_late(const struct database *db)
{
    return db->is_late;
}

void database_cancel(struct database *db, int64_t until)
{
    (void)until;
    usleep(1000);
    db->is_late = atomic_fetch_sub(&cancels_needed, 1) > 1;
}

const char *database_sqlstate(const struct database *db)
{
    return db->sqlstate;
}

int database_rows(const struct database *db)
{
    return db->rows;
}

bool database_is_null(const struct database *db, int row, int column)
{
    return column == 1 && db->is_null[row];
}

int64_t database_integer(const struct database *db, int row, int column)
{
    return db->cells[row][column];
}

/* Waits until a condition holds; a test that hangs is ended by its alarm. */
#define UNTIL(condition)                                                                           \
    while (!(condition))                                                                           \
    usleep(500)

enum { TEST_SECONDS = 120 };

static struct pool *tested;

/* How many wait in its queue. */
static int queued(void)
{
    int count;

    pthread_mutex_lock(&tested->lock);
    count = tested->waiting;
    pthread_mutex_unlock(&tested->lock);
    return count;
}

#endif
