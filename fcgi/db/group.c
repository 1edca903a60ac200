#include "db/group.h"

#include "base/clock.h"
#include "db/array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char STORE_ONE[] =
    "SELECT inserted_count FROM public.bulk_insert_events($1::text::jsonb)";
static const char STORE_GROUP[] =
    "SELECT position, inserted_count FROM public.bulk_insert_batches($1, $2)";

/* What a leader tells a member, as soon as it knows. */
struct result {
    enum database_verdict verdict;
    int64_t inserted;
    const char *sqlstate;
    bool is_reported;
};

/*
 * The members of a leader. Their bodies and ids are copied, so that each can leave at its
 * deadline.
 */
struct group {
    struct pool *pool;
    struct database *db;
    size_t count;
    unsigned char *array; /* the bodies, as the binary form of a jsonb[] */
    size_t array_length;
    struct pool_waiter *members[POOL_GROUP_BATCHES];
    struct array_item bodies[POOL_GROUP_BATCHES]; /* within array, once it is encoded */
    int64_t deadlines[POOL_GROUP_BATCHES];
    /* The ids of the requests; "" of those that log their failure themselves. */
    char requests[POOL_GROUP_BATCHES][RECORD_REQUEST_BYTES + 1];
    struct group_failure failure;
};

static void write_result(void *context, const void *given)
{
    struct group_batch *batch = context;
    const struct result *result = given;

    batch->verdict = result->verdict;
    batch->inserted = result->inserted;
    snprintf(batch->sqlstate, sizeof(batch->sqlstate), "%s", result->sqlstate);
    batch->is_reported = result->is_reported;
}

static void serve(struct group *group, size_t i, enum database_verdict verdict, int64_t inserted)
{
    const struct result result = {verdict, inserted, database_sqlstate(group->db),
                                  group->failure.ids != NULL};

    pool_serve(group->pool, &group->members[i], write_result, &result);
}

/* Notes for whom a statement failed, also those that have left. */
static void note_failure(struct group *group)
{
    struct array_item items[POOL_GROUP_BATCHES];
    size_t count = 0;

    for (size_t i = 0; i < group->count; i++) {
        size_t length = strlen(group->requests[i]);

        if (length > 0)
            items[count++] = (struct array_item){group->requests[i], length};
    }
    group->failure.ids = array_of_text(items, count, &group->failure.length);
    snprintf(group->failure.sqlstate, sizeof(group->failure.sqlstate), "%s",
             database_sqlstate(group->db));
}

/* Tells all that have no verdict yet that their statement failed. */
static void fail_all(struct group *group, enum database_verdict verdict)
{
    if (*database_sqlstate(group->db) != '\0')
        note_failure(group);
    for (size_t i = 0; i < group->count; i++)
        serve(group, i, verdict, 0);
}

/* Stores one batch by a statement of its own; *inserted is set when it is DATABASE_DONE. */
static enum database_verdict store_one(struct database *db, const char *body, size_t length,
                                       int64_t deadline, int64_t *inserted)
{
    const struct database_parameter parameter = {DATABASE_TEXT, body, length};
    enum database_verdict verdict = database_call(db, STORE_ONE, &parameter, 1, deadline);

    if (verdict == DATABASE_DONE && database_rows(db) != 1)
        return DATABASE_FAILED;
    if (verdict == DATABASE_DONE)
        *inserted = database_integer(db, 0, 0);
    return verdict;
}

/* After the database refused the data of some batch: a statement for each. */
static void store_each(struct group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        int64_t inserted = 0;
        enum database_verdict verdict;

        /* Its sender was told to try again, or soon will be. */
        if (pool_has_left(group->pool, &group->members[i]))
            continue;
        verdict = store_one(group->db, group->bodies[i].text, group->bodies[i].length,
                            group->deadlines[i], &inserted);
        /*
         * What one waits for in vain, each would: a locked table, or the connection itself.
         * But the time of one may be over before that of the others.
         */
        if (verdict == DATABASE_AWAY &&
            (database_is_late(group->db) || clock_left(group->deadlines[i]) > DATABASE_MARGIN_MS)) {
            fail_all(group, verdict);
            return;
        }
        serve(group, i, verdict, inserted);
        *group->requests[i] = '\0';
    }
}

/*
 * Tells each member its count; one without has a shard that is away. A database that leaves one
 * out did not do what it was asked.
 */
static void serve_counts(struct group *group)
{
    for (int row = 0; row < database_rows(group->db); row++) {
        int64_t position = database_integer(group->db, row, 0);

        if (position < 0 || (size_t)position >= group->count)
            continue;
        if (database_is_null(group->db, row, 1))
            serve(group, (size_t)position, DATABASE_AWAY, 0);
        else
            serve(group, (size_t)position, DATABASE_DONE, database_integer(group->db, row, 1));
    }
    fail_all(group, DATABASE_FAILED);
}

static void store_group(struct group *group)
{
    int32_t positions[POOL_GROUP_BATCHES];
    size_t positions_length;
    int64_t deadline = 0;
    unsigned char *encoded;
    enum database_verdict verdict;

    for (size_t i = 0; i < group->count; i++) {
        positions[i] = (int32_t)i;
        if (group->deadlines[i] > deadline)
            deadline = group->deadlines[i];
    }
    encoded = array_of_int4(positions, group->count, &positions_length);
    if (encoded == NULL) {
        fail_all(group, DATABASE_FAILED);
        return;
    }
    const struct database_parameter parameters[] = {
        {DATABASE_INT4_ARRAY, encoded, positions_length},
        {DATABASE_JSONB_ARRAY, group->array, group->array_length},
    };

    verdict = database_call(group->db, STORE_GROUP, parameters, 2, deadline);
    if (verdict == DATABASE_DONE)
        serve_counts(group);
    else if (verdict == DATABASE_REFUSED)
        store_each(group);
    else
        fail_all(group, verdict);
    free(encoded);
}

/* Copies the members' bodies; false if out of memory. */
static bool copy_members(struct group *group, struct pool_waiter *members)
{
    for (struct pool_waiter *waiter = members; waiter != NULL; waiter = waiter->next) {
        const struct group_batch *batch = waiter->context;

        group->members[group->count] = waiter;
        group->deadlines[group->count] = waiter->deadline;
        group->bodies[group->count] = (struct array_item){batch->body, batch->length};
        memcpy(group->requests[group->count], batch->record->request, sizeof(group->requests[0]));
        group->count++;
    }
    group->array = array_of_jsonb(group->bodies, group->count, &group->array_length);
    pool_allow_leaving(group->pool, group->members, group->count);
    return group->array != NULL;
}

static void lead(struct pool *pool, const struct pool_waiter *leader, struct group_batch *batch)
{
    struct group group = {.pool = pool, .db = leader->db};

    if (copy_members(&group, leader->members))
        store_group(&group);
    else
        fail_all(&group, DATABASE_FAILED);
    free(group.array);
    batch->failure = group.failure;
}

/* A batch that nobody else waits with. */
static void store_alone(struct database *db, struct group_batch *batch)
{
    struct result result = {.inserted = 0};

    result.verdict = store_one(db, batch->body, batch->length, batch->deadline, &result.inserted);
    result.sqlstate = database_sqlstate(db);
    write_result(batch, &result);
}

void group_store(struct pool *pool, struct group_batch *batch)
{
    int64_t begun = clock_us();
    struct pool_waiter waiter = {.deadline = batch->deadline,
                                 .events = batch->events,
                                 .bytes = batch->length,
                                 .context = batch};

    batch->verdict = DATABASE_AWAY;
    batch->inserted = 0;
    batch->sqlstate[0] = '\0';
    batch->is_reported = false;
    batch->db = NULL;
    batch->failure.ids = NULL;
    if (pool_wait(pool, &waiter) == POOL_LEADS) {
        if (waiter.members == &waiter && waiter.next == NULL)
            store_alone(waiter.db, batch);
        else
            lead(pool, &waiter, batch);
        if ((*batch->sqlstate != '\0' || batch->failure.ids != NULL) &&
            !database_is_late(waiter.db))
            batch->db = waiter.db;
        else
            pool_give_back(pool, waiter.db);
    }
    record_add(batch->record, batch->verdict, batch->sqlstate, clock_us() - begun);
    batch->record->is_reported = batch->is_reported;
}
