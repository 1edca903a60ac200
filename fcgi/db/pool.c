#include "db/pool.h"

#include "base/clock.h"
#include "db/canceller.h"

#include <stdlib.h>
#include <string.h>

enum {
    FIRST_CONNECT_MS = 500,
    WOKEN_MOST = 16,
};

struct pool {
    pthread_mutex_t lock;
    struct connection_limits limits;
    struct pool_waiter *first; /* in the queue, which is empty while a connection is free */
    struct pool_waiter **last;
    int waiting;                   /* how many are in the queue */
    struct pool_waiter *followers; /* all members of groups but the leaders, by next_follower */
    int follower_count;
    int most_waiting;
    bool is_away;
    int count;
    int free_count;
    int late_count; /* how many the canceller has */
    struct canceller *canceller;
    struct database **free; /* the last one used is taken first: its caches are warm */
    /* For waiters; they stay, so that one can be signalled after its waiter has gone. */
    pthread_cond_t *conditions;
    pthread_cond_t **unused;
    int unused_count;
    pthread_cond_t *woken[WOKEN_MOST]; /* to be signalled after the lock is given up */
    int woken_count;
    struct database *connections[];
};

/*
 * Gives up the lock, and then wakes whom wake named: woken under the lock, they would only
 * wait for it.
 */
static void unlock(struct pool *pool)
{
    pthread_cond_t *woken[WOKEN_MOST];
    int count = pool->woken_count;

    memcpy(woken, pool->woken, sizeof(woken));
    pool->woken_count = 0;
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < count; i++)
        pthread_cond_signal(woken[i]);
}

static void wake(struct pool *pool, const struct pool_waiter *waiter)
{
    if (pool->woken_count < WOKEN_MOST)
        pool->woken[pool->woken_count++] = waiter->changed;
    else
        pthread_cond_signal(waiter->changed);
}

static void enqueue(struct pool *pool, struct pool_waiter *waiter)
{
    waiter->next = NULL;
    waiter->state = POOL_QUEUED;
    *pool->last = waiter;
    pool->last = &waiter->next;
    pool->waiting++;
}

/* Takes the waiter that *link points to out of the queue. */
static struct pool_waiter *dequeue(struct pool *pool, struct pool_waiter **link)
{
    struct pool_waiter *waiter = *link;

    *link = waiter->next;
    if (waiter->next == NULL)
        pool->last = link;
    waiter->next = NULL;
    pool->waiting--;
    return waiter;
}

static struct pool_waiter **find_link(struct pool *pool, const struct pool_waiter *waiter)
{
    struct pool_waiter **link = &pool->first;

    while (*link != waiter)
        link = &(*link)->next;
    return link;
}

/* Ends the wait of one in the queue without a connection. */
static void turn_away(struct pool *pool, struct pool_waiter **link)
{
    struct pool_waiter *waiter = dequeue(pool, link);

    waiter->state = POOL_LEFT;
    wake(pool, waiter);
}

static void add_follower(struct pool *pool, struct pool_waiter *waiter)
{
    waiter->state = POOL_FOLLOWS;
    waiter->next_follower = pool->followers;
    pool->followers = waiter;
    pool->follower_count++;
}

/* Ends a follower's wait for its leader. */
static void dismiss(struct pool *pool, struct pool_waiter *waiter, enum pool_state state)
{
    struct pool_waiter **link = &pool->followers;

    while (*link != waiter)
        link = &(*link)->next_follower;
    *link = waiter->next_follower;
    pool->follower_count--;
    *waiter->owner = NULL;
    waiter->state = state;
    wake(pool, waiter);
}

/* How many wait for the database while it is away: for a connection, with one, or for a leader. */
static int waiting(const struct pool *pool)
{
    return pool->count - pool->free_count - pool->late_count + pool->follower_count + pool->waiting;
}

/*
 * While the database is away, turns away those for whom there is no room: first the last in
 * the queue, then members of groups. The others recompute how long they wait.
 */
static void turn_away_rest(struct pool *pool)
{
    int rest = waiting(pool) - pool->most_waiting;
    struct pool_waiter **link = &pool->first;
    struct pool_waiter *next;

    for (int stay = pool->waiting - rest; *link != NULL; stay--) {
        if (stay <= 0) {
            turn_away(pool, link);
            rest--;
        } else {
            wake(pool, *link);
            link = &(*link)->next;
        }
    }
    for (struct pool_waiter *waiter = pool->followers; waiter != NULL && rest > 0; waiter = next) {
        next = waiter->next_follower;
        if (waiter->owner == NULL)
            continue;
        dismiss(pool, waiter, POOL_LEFT);
        rest--;
    }
}

/* Told by a connection, on the thread that uses it. */
static void note_away(void *context, bool is_away)
{
    struct pool *pool = context;

    pthread_mutex_lock(&pool->lock);
    if (is_away && !pool->is_away)
        turn_away_rest(pool);
    pool->is_away = is_away;
    unlock(pool);
}

/*
 * Makes the first in the queue a leader. A batch takes those behind it along, as far as they
 * fit; the one with the latest deadline leads, so that nobody outlasts the leader.
 */
static void hand_over(struct pool *pool, struct database *db)
{
    struct pool_waiter *leader = dequeue(pool, &pool->first);
    struct pool_waiter *members = leader;
    struct pool_waiter **end = &leader->next;
    size_t events = leader->events;
    size_t bytes = leader->bytes;
    int64_t give_up = leader->give_up;

    if (events > 0) {
        struct pool_waiter **link = &pool->first;
        int count = 1;

        while (*link != NULL && count < POOL_GROUP_BATCHES) {
            struct pool_waiter *waiter = *link;

            if (waiter->events == 0) {
                link = &waiter->next;
                continue;
            }
            if (events + waiter->events > POOL_GROUP_EVENTS ||
                bytes + waiter->bytes > POOL_GROUP_BYTES)
                break;
            events += waiter->events;
            bytes += waiter->bytes;
            count++;
            *end = dequeue(pool, link);
            if ((*end)->give_up > give_up)
                give_up = (*end)->give_up;
            if ((*end)->deadline > leader->deadline)
                leader = *end;
            end = &(*end)->next;
        }
    }
    for (struct pool_waiter *waiter = members; waiter != NULL; waiter = waiter->next) {
        if (waiter != leader)
            add_follower(pool, waiter);
    }
    leader->state = POOL_LEADS;
    leader->give_up = give_up;
    leader->db = db;
    leader->members = members;
    wake(pool, leader);
}

/*
 * Until when one waits, given what the pool knows. Nobody tells members that the database
 * went away: they look when it would be time.
 */
static int64_t waits_until(const struct pool *pool, const struct pool_waiter *waiter, int64_t now)
{
    bool may_give_up = waiter->give_up < waiter->deadline;

    if (may_give_up && (pool->is_away || waiter->give_up > now))
        return waiter->give_up;
    return waiter->deadline;
}

/* Waits while it is in the queue or follows a leader; leaves when its time is over. */
static void await_turn(struct pool *pool, struct pool_waiter *waiter)
{
    while (waiter->state == POOL_QUEUED || waiter->state == POOL_FOLLOWS) {
        int64_t now = clock_ms();
        int64_t until = waits_until(pool, waiter, now);

        if (until > now) {
            clock_wait(waiter->changed, &pool->lock, until);
        } else if (waiter->state == POOL_QUEUED) {
            turn_away(pool, find_link(pool, waiter));
        } else if (waiter->owner != NULL) {
            dismiss(pool, waiter, POOL_LEFT);
        } else {
            waiter->is_overdue = true;
            pthread_cond_wait(waiter->changed, &pool->lock);
        }
    }
}

enum pool_state pool_wait(struct pool *pool, struct pool_waiter *waiter)
{
    waiter->db = NULL;
    waiter->members = waiter;
    waiter->next = NULL;
    waiter->owner = NULL;
    waiter->is_overdue = false;
    waiter->give_up = clock_ms() + pool->limits.wait_ms;

    pthread_mutex_lock(&pool->lock);
    if (pool->is_away && waiting(pool) >= pool->most_waiting) {
        waiter->state = POOL_LEFT;
    } else if (pool->free_count > 0) {
        waiter->db = pool->free[--pool->free_count];
        waiter->state = POOL_LEADS;
    } else {
        waiter->changed = pool->unused[--pool->unused_count];
        enqueue(pool, waiter);
        await_turn(pool, waiter);
        pool->unused[pool->unused_count++] = waiter->changed;
    }
    unlock(pool);
    if (waiter->state == POOL_LEADS)
        database_give_up_at(waiter->db, waiter->give_up);
    return waiter->state;
}

struct database *pool_take(struct pool *pool, int64_t deadline)
{
    struct pool_waiter waiter = {.deadline = deadline};

    return pool_wait(pool, &waiter) == POOL_LEADS ? waiter.db : NULL;
}

static void put_back(struct pool *pool, struct database *db)
{
    if (database_is_late(db)) {
        pool->late_count++;
        canceller_add(pool->canceller, db);
    } else if (pool->first != NULL) {
        hand_over(pool, db);
    } else {
        pool->free[pool->free_count++] = db;
    }
}

void pool_give_back(struct pool *pool, struct database *db)
{
    database_clear(db);
    pthread_mutex_lock(&pool->lock);
    put_back(pool, db);
    unlock(pool);
}

/* Called by the canceller. */
static void take_back(void *context, struct database *db)
{
    struct pool *pool = context;

    pthread_mutex_lock(&pool->lock);
    pool->late_count--;
    put_back(pool, db);
    unlock(pool);
}

void pool_allow_leaving(struct pool *pool, struct pool_waiter **members, size_t count)
{
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < count; i++) {
        members[i]->owner = &members[i];
        if (members[i]->is_overdue)
            wake(pool, members[i]);
    }
    if (pool->is_away)
        turn_away_rest(pool);
    unlock(pool);
}

bool pool_has_left(struct pool *pool, struct pool_waiter **waiter)
{
    bool has_left;

    pthread_mutex_lock(&pool->lock);
    has_left = *waiter == NULL;
    unlock(pool);
    return has_left;
}

void pool_serve(struct pool *pool, struct pool_waiter **waiter,
                void (*write)(void *context, const void *result), const void *result)
{
    pthread_mutex_lock(&pool->lock);
    if (*waiter != NULL) {
        write((*waiter)->context, result);
        if ((*waiter)->state == POOL_FOLLOWS)
            dismiss(pool, *waiter, POOL_SERVED);
        *waiter = NULL;
    }
    unlock(pool);
}

struct pool *pool_new(const char *name, int connections, int workers, int wait_ms)
{
    struct pool *pool = calloc(1, sizeof(*pool) + (size_t)connections * sizeof(struct database *));

    if (pool == NULL)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pool->last = &pool->first;
    pool->most_waiting = workers > 1 ? workers / 2 : 1;
    pool->limits = (struct connection_limits){.first_connect_ms = FIRST_CONNECT_MS,
                                              .wait_ms = wait_ms,
                                              .note_away = note_away,
                                              .context = pool};
    pool->free = calloc((size_t)connections, sizeof(struct database *));
    pool->conditions = calloc((size_t)workers, sizeof(pthread_cond_t));
    pool->unused = calloc((size_t)workers, sizeof(pthread_cond_t *));
    while (pool->conditions != NULL && pool->unused != NULL && pool->unused_count < workers) {
        pthread_cond_t *condition = &pool->conditions[pool->unused_count];

        pthread_cond_init(condition, NULL);
        pool->unused[pool->unused_count++] = condition;
    }
    while (pool->free != NULL && pool->unused_count == workers && pool->count < connections) {
        struct database *db = database_new(name, &pool->limits);

        if (db == NULL)
            break;
        pool->connections[pool->count++] = db;
        pool->free[pool->free_count++] = db;
    }
    if (pool->count == connections)
        pool->canceller = canceller_new(connections, take_back, pool);
    if (pool->canceller != NULL)
        return pool;
    pool_free(pool);
    return NULL;
}

void pool_free(struct pool *pool)
{
    /* The process ends, and with it a thread that still waits. */
    if (pool == NULL || !canceller_free(pool->canceller))
        return;
    for (int i = 0; i < pool->count; i++)
        database_free(pool->connections[i]);
    pthread_mutex_destroy(&pool->lock);
    free(pool->free);
    free(pool->conditions);
    free(pool->unused);
    free(pool);
}
