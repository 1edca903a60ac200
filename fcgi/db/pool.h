/*
 * The few connections that a program's workers share, and the queue of those that wait for
 * one. Batches that wait get a connection together, as a group (group commit): one of them
 * is the leader, which stores all, and the others follow. Any thread may call this.
 */
#ifndef STEEP_POOL_H
#define STEEP_POOL_H

#include "base/attributes.h"
#include "db/database.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a group may have; the first batch of a group always fits. */
enum { POOL_GROUP_EVENTS = 1000, POOL_GROUP_BYTES = 1024 * 1024, POOL_GROUP_BATCHES = 256 };

struct pool;

/* One that waits, on its caller's stack: there must be no more of them than workers. */
struct pool_waiter {
    /* Set by the caller. */
    int64_t deadline;     /* clock_ms */
    size_t events, bytes; /* of a batch, which may be stored with others; events is 0 for none */
    void *context;        /* for the leader */

    /* The pool's; the first three are the leader's to read. */
    struct database *db;         /* the connection of a leader */
    struct pool_waiter *members; /* of a leader: all that it serves, itself among them, in order */
    struct pool_waiter *next;    /* the one behind it in the queue or group */
    struct pool_waiter *next_follower;
    struct pool_waiter **owner; /* the leader's pointer to this waiter, once it may leave */
    pthread_cond_t *changed;    /* one of the pool's */
    bool is_overdue;            /* would leave if it might */
    int64_t give_up;            /* clock_ms: when it leaves while the database is away */
    enum pool_state { POOL_QUEUED, POOL_LEADS, POOL_FOLLOWS, POOL_SERVED, POOL_LEFT } state;
};

/*
 * Makes a pool of unconnected connections. workers is how many callers there may be; half
 * of them wait for an absent database, each for wait_ms at most. name is what
 * pg_stat_activity shows, and must outlive the pool. NULL if out of memory or threads.
 */
struct pool *pool_new(const char *name, int connections, int workers, int wait_ms);

/*
 * Closes the connections of a pool that nobody uses any more, and frees it; takes NULL. Waits
 * for a statement that is being cancelled, 4 s at most, and then leaves all to the process's end.
 */
void pool_free(struct pool *pool);

/*
 * Waits for a connection, or for a leader. POOL_LEADS: the caller has waiter->db and serves
 * waiter->members, and must give the connection back. POOL_SERVED: a leader has served it.
 * POOL_LEFT: neither before its deadline, or the database is away and enough others wait.
 */
enum pool_state pool_wait(struct pool *pool, struct pool_waiter *waiter) MUST_CHECK;

/* The same for a caller that shares nothing: a connection, or NULL. */
struct database *pool_take(struct pool *pool, int64_t deadline) MUST_CHECK;

/*
 * Gives a connection back, without its rows, to the first in the queue if there is one. One
 * that is late counts as taken until its statement, which the pool cancels, has ended.
 */
void pool_give_back(struct pool *pool, struct database *db);

/*
 * Lets members leave from now on, as those in the queue may; until then they stay, so that
 * the leader can read what is theirs. members[i] becomes NULL when that one leaves.
 */
void pool_allow_leaving(struct pool *pool, struct pool_waiter **members, size_t count);

/* Whether a member has left, or was served. */
bool pool_has_left(struct pool *pool, struct pool_waiter **waiter) MUST_CHECK;

/*
 * Wakes a member with its result, unless it has left: write is called under the pool's
 * lock with the member's context and result.
 */
void pool_serve(struct pool *pool, struct pool_waiter **waiter,
                void (*write)(void *context, const void *result), const void *result);

#endif
