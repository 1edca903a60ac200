#include "scripted_pool.h"

enum { CALLERS = 300, FAR_MS = 600000, SOON_MS = 50 };

/* One that waits, on a thread of its own. */
struct caller {
    struct pool_waiter waiter;
    pthread_t thread;
    enum pool_state state;
    atomic_bool is_done;
};

static struct caller callers[CALLERS];
static int caller_count;
static struct pool_waiter *found[CALLERS]; /* of a leader's members */

static void set_up(int connections, int workers)
{
    alarm(TEST_SECONDS);
    caller_count = 0;
    memset(callers, 0, sizeof(callers));
    atomic_store(&cancels_needed, 0);
    tested = pool_new("unit", connections, workers, FAR_MS);
    assert_non_null(tested);
}

static void tear_down(void)
{
    for (int i = 0; i < caller_count; i++)
        pthread_join(callers[i].thread, NULL);
    pool_free(tested);
    alarm(0);
}

static void *wait_for_it(void *arg)
{
    struct caller *caller = arg;

    caller->state = pool_wait(tested, &caller->waiter);
    atomic_store(&caller->is_done, true);
    return NULL;
}

/* Starts a caller and waits until it is in the queue. */
static struct caller *join_after(size_t events, size_t bytes, int64_t ms)
{
    struct caller *caller = &callers[caller_count++];
    int before = queued();

    caller->waiter =
        (struct pool_waiter){.deadline = clock_ms() + ms, .events = events, .bytes = bytes};
    assert_int_equal(pthread_create(&caller->thread, NULL, wait_for_it, caller), 0);
    UNTIL(queued() > before || atomic_load(&caller->is_done));
    return caller;
}

static struct database *take(void)
{
    struct database *db = pool_take(tested, clock_ms() + FAR_MS);

    assert_non_null(db);
    return db;
}

static enum pool_state outcome(struct caller *caller)
{
    UNTIL(atomic_load(&caller->is_done));
    return caller->state;
}

/* Lets a caller's deadline pass. */
static void end_patience(struct caller *caller)
{
    pthread_mutex_lock(&tested->lock);
    caller->waiter.deadline = clock_ms();
    pthread_cond_signal(caller->waiter.changed);
    pthread_mutex_unlock(&tested->lock);
}

static void ignore(void *context, const void *result)
{
    (void)context;
    (void)result;
}

static size_t members_of(const struct caller *leader)
{
    size_t count = 0;

    for (struct pool_waiter *waiter = leader->waiter.members; waiter != NULL; waiter = waiter->next)
        found[count++] = waiter;
    return count;
}

/* Checks whom a caller leads, serves them, and gives its connection back. */
static void leads(struct caller *leader, struct caller *const *members, size_t count)
{
    assert_int_equal(outcome(leader), POOL_LEADS);
    assert_int_equal(members_of(leader), count);
    for (size_t i = 0; i < count; i++)
        assert_ptr_equal(found[i], &members[i]->waiter);
    pool_allow_leaving(tested, found, count);
    for (size_t i = 0; i < count; i++)
        pool_serve(tested, &found[i], ignore, NULL);
    for (size_t i = 0; i < count; i++) {
        if (members[i] != leader)
            assert_int_equal(outcome(members[i]), POOL_SERVED);
    }
    pool_give_back(tested, leader->waiter.db);
}

#define LEADS(leader, ...)                                                                         \
    leads(leader, (struct caller *[]){__VA_ARGS__},                                                \
          sizeof((struct caller *[]){__VA_ARGS__}) / sizeof(struct caller *))

static void gives_a_free_connection_at_once_the_last_used_first(void **state)
{
    struct database *first, *second;

    (void)state;
    set_up(2, 8);
    first = take();
    second = take();
    assert_ptr_not_equal(first, second);
    pool_give_back(tested, second);
    pool_give_back(tested, first);
    assert_ptr_equal(take(), first);
    pool_give_back(tested, first);
    tear_down();
}

static void a_connection_is_given_back_without_the_rows_and_the_error_of_its_statement(void **state)
{
    struct database *db;

    (void)state;
    set_up(1, 8);
    db = take();
    db->rows = 3;
    db->sqlstate = "23514";
    pool_give_back(tested, db);
    assert_int_equal(database_rows(db), 0);
    assert_string_equal(database_sqlstate(db), "");
    tear_down();
}

static void batches_that_wait_are_handed_over_together_in_their_order(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *a = join_after(1, 10, FAR_MS);
    struct caller *b = join_after(2, 10, FAR_MS + 1000);
    struct caller *c = join_after(3, 10, FAR_MS - 1000);

    pool_give_back(tested, db);
    /* The one with the latest deadline leads. */
    LEADS(b, a, b, c);
    tear_down();
}

static void a_group_has_so_many_events_at_most(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *a = join_after(POOL_GROUP_EVENTS - 1, 10, FAR_MS + 1000);
    struct caller *b = join_after(1, 10, FAR_MS);
    struct caller *c = join_after(1, 10, FAR_MS + 2000);

    pool_give_back(tested, db);
    LEADS(a, a, b);
    LEADS(c, c);
    tear_down();
}

static void a_group_has_so_many_bytes_at_most(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *a = join_after(1, POOL_GROUP_BYTES / 2, FAR_MS + 1000);
    struct caller *b = join_after(1, POOL_GROUP_BYTES / 2, FAR_MS);
    struct caller *c = join_after(1, 1, FAR_MS);

    pool_give_back(tested, db);
    LEADS(a, a, b);
    LEADS(c, c);
    tear_down();
}

static void a_group_has_so_many_batches_at_most(void **state)
{
    struct database *db;

    (void)state;
    set_up(1, CALLERS);
    db = take();
    for (int i = 0; i < POOL_GROUP_BATCHES + 1; i++)
        (void)join_after(1, 1, FAR_MS + (i == 0 ? 1000000 : 0));
    pool_give_back(tested, db);
    assert_int_equal(outcome(&callers[0]), POOL_LEADS);
    assert_int_equal(members_of(&callers[0]), POOL_GROUP_BATCHES);
    pool_allow_leaving(tested, found, POOL_GROUP_BATCHES);
    for (int i = 0; i < POOL_GROUP_BATCHES; i++)
        pool_serve(tested, &found[i], ignore, NULL);
    pool_give_back(tested, callers[0].waiter.db);
    LEADS(&callers[POOL_GROUP_BATCHES], &callers[POOL_GROUP_BATCHES]);
    tear_down();
}

static void a_batch_larger_than_a_group_goes_alone_and_in_its_turn(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *small = join_after(1, 1, FAR_MS);
    struct caller *large = join_after(1, 5 * POOL_GROUP_BYTES, FAR_MS);
    struct caller *later = join_after(1, 1, FAR_MS);

    pool_give_back(tested, db);
    LEADS(small, small);
    LEADS(large, large);
    LEADS(later, later);
    tear_down();
}

static void one_that_shares_nothing_keeps_its_turn(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *a = join_after(1, 1, FAR_MS + 1000);
    struct caller *alone = join_after(0, 0, FAR_MS);
    struct caller *b = join_after(1, 1, FAR_MS);
    struct caller *other = join_after(0, 0, FAR_MS);

    pool_give_back(tested, db);
    LEADS(a, a, b);
    LEADS(alone, alone);
    LEADS(other, other);
    tear_down();
}

static void one_leaves_the_queue_at_its_deadline_wherever_it_stands(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *a = join_after(1, 1, FAR_MS);
    struct caller *b = join_after(1, 1, FAR_MS + 1000);
    struct caller *c = join_after(1, 1, FAR_MS);
    struct caller *d = join_after(1, 1, FAR_MS);
    struct caller *e = join_after(1, 1, FAR_MS);

    end_patience(a);
    end_patience(c);
    end_patience(e);
    assert_int_equal(outcome(a), POOL_LEFT);
    assert_int_equal(outcome(c), POOL_LEFT);
    assert_int_equal(outcome(e), POOL_LEFT);
    struct caller *f = join_after(1, 1, FAR_MS);

    pool_give_back(tested, db);
    LEADS(b, b, d, f);
    tear_down();
}

static void a_member_leaves_at_its_deadline_once_it_may(void **state)
{
    (void)state;
    set_up(1, 8);
    struct database *db = take();
    struct caller *leader = join_after(1, 1, FAR_MS);
    struct caller *short_of_time = join_after(1, 1, FAR_MS - 1000);
    struct caller *patient = join_after(1, 1, FAR_MS - 1000);

    pool_give_back(tested, db);
    assert_int_equal(outcome(leader), POOL_LEADS);
    end_patience(short_of_time);
    usleep(SOON_MS * 1000);
    assert_false(atomic_load(&short_of_time->is_done));
    assert_int_equal(members_of(leader), 3);
    pool_allow_leaving(tested, found, 3);
    assert_int_equal(outcome(short_of_time), POOL_LEFT);
    assert_true(pool_has_left(tested, &found[1]));
    assert_false(pool_has_left(tested, &found[2]));
    for (int i = 0; i < 3; i++)
        pool_serve(tested, &found[i], ignore, NULL);
    assert_int_equal(outcome(patient), POOL_SERVED);
    assert_int_equal(short_of_time->state, POOL_LEFT);
    pool_give_back(tested, leader->waiter.db);
    tear_down();
}

static void tell(const struct database *db, bool is_away)
{
    db->limits->note_away(db->limits->context, is_away);
}

static void while_the_database_is_away_half_the_workers_wait(void **state)
{
    struct database *db;

    (void)state;
    set_up(1, 8);
    db = take();
    for (int i = 0; i < 6; i++)
        (void)join_after(1, 1, FAR_MS + 1000 * i);
    tell(db, true);
    /* One has the connection, and the first three in the queue stay. */
    for (int i = 3; i < 6; i++)
        assert_int_equal(outcome(&callers[i]), POOL_LEFT);
    assert_int_equal(queued(), 3);
    assert_int_equal(outcome(join_after(1, 1, FAR_MS)), POOL_LEFT);
    tell(db, false);
    assert_false(atomic_load(&join_after(1, 1, FAR_MS - 1000)->is_done));
    pool_give_back(tested, db);
    LEADS(&callers[2], &callers[0], &callers[1], &callers[2], &callers[7]);
    tear_down();
}

static void members_of_a_group_count_among_those_who_wait(void **state)
{
    struct database *db;
    int left = 0;

    (void)state;
    set_up(1, 8);
    db = take();
    for (int i = 0; i < 6; i++)
        (void)join_after(1, 1, i == 0 ? FAR_MS + 1000 : FAR_MS);
    pool_give_back(tested, db);
    assert_int_equal(outcome(&callers[0]), POOL_LEADS);
    assert_int_equal(members_of(&callers[0]), 6);
    pool_allow_leaving(tested, found, 6);
    assert_false(atomic_load(&join_after(1, 1, FAR_MS)->is_done));
    tell(db, true);
    assert_int_equal(outcome(&callers[6]), POOL_LEFT);
    for (int i = 1; i < 6; i++)
        left += pool_has_left(tested, &found[i]);
    assert_int_equal(left, 2);
    for (int i = 0; i < 6; i++)
        pool_serve(tested, &found[i], ignore, NULL);
    tell(db, false);
    pool_give_back(tested, db);
    tear_down();
}

static void a_late_connection_is_taken_until_its_statement_has_ended(void **state)
{
    struct database *db;
    struct caller *next;

    (void)state;
    set_up(1, 8);
    db = take();
    next = join_after(0, 0, FAR_MS);
    db->is_late = true;
    atomic_store(&cancels_needed, 1000);
    pool_give_back(tested, db);
    UNTIL(atomic_load(&cancels_needed) < 990);
    assert_false(atomic_load(&next->is_done));
    atomic_store(&cancels_needed, 1);
    LEADS(next, next);
    assert_ptr_equal(next->waiter.db, db);
    assert_false(db->is_late);
    tear_down();
}

static void ends_with_a_connection_that_stays_late(void **state)
{
    struct database *db;

    (void)state;
    set_up(2, 8);
    db = take();
    db->is_late = true;
    atomic_store(&cancels_needed, 1000000);
    pool_give_back(tested, db);
    UNTIL(atomic_load(&cancels_needed) < 999990);
    pool_give_back(tested, take());
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_a_free_connection_at_once_the_last_used_first),
        cmocka_unit_test(
            a_connection_is_given_back_without_the_rows_and_the_error_of_its_statement),
        cmocka_unit_test(batches_that_wait_are_handed_over_together_in_their_order),
        cmocka_unit_test(a_group_has_so_many_events_at_most),
        cmocka_unit_test(a_group_has_so_many_bytes_at_most),
        cmocka_unit_test(a_group_has_so_many_batches_at_most),
        cmocka_unit_test(a_batch_larger_than_a_group_goes_alone_and_in_its_turn),
        cmocka_unit_test(one_that_shares_nothing_keeps_its_turn),
        cmocka_unit_test(one_leaves_the_queue_at_its_deadline_wherever_it_stands),
        cmocka_unit_test(a_member_leaves_at_its_deadline_once_it_may),
        cmocka_unit_test(while_the_database_is_away_half_the_workers_wait),
        cmocka_unit_test(members_of_a_group_count_among_those_who_wait),
        cmocka_unit_test(a_late_connection_is_taken_until_its_statement_has_ended),
        cmocka_unit_test(ends_with_a_connection_that_stays_late),
    };

    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
