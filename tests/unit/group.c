#include "db/group.h"
#include "base/clock.h"
#include "scripted_pool.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { WORKERS = 16, FAR_MS = 600000, SOON_MS = 200, BODY_BYTES = 32, STATEMENTS_MOST = 64 };
enum { REPORTED_BYTES = 1024 };
enum { RANDOM_SEED = 15, RANDOM_BATCHES = 400, RANDOM_CONNECTIONS = 3 };

/* A worker with a batch. Its body says what the database makes of it: see judge. */
struct sender {
    char body[BODY_BYTES];
    struct record record;
    struct group_batch batch;
    pthread_t thread;
    atomic_bool is_done;
};

/* What the database was asked, one entry a statement. */
static struct statement {
    size_t batches;
    char bodies[WORKERS][BODY_BYTES];
    int64_t deadline;
} statements[STATEMENTS_MOST];
static atomic_int statement_count;
static atomic_int allowed; /* how many statements the database answers */
static struct sender senders[WORKERS];
static int sender_count;
static char reported[REPORTED_BYTES]; /* the failures of groups: ids and SQLSTATE */

static uint32_t int4_at(const unsigned char *bytes)
{
    uint32_t number;

    memcpy(&number, bytes, sizeof(number));
    return ntohl(number);
}

static void copy_body(char *to, const void *bytes, size_t length)
{
    assert_true(length < BODY_BYTES);
    memcpy(to, bytes, length);
    to[length] = '\0';
}

/* Reads the bodies of a statement; how many there are. */
static size_t read_bodies(const char *sql, const struct database_parameter *parameters,
                          char bodies[][BODY_BYTES])
{
    const unsigned char *at = parameters[1].value;
    size_t count;

    if (strstr(sql, "bulk_insert_batches") == NULL) {
        copy_body(bodies[0], parameters[0].value, parameters[0].length);
        return 1;
    }
    count = int4_at(at + 12);
    at += 20;
    for (size_t i = 0; i < count; i++) {
        size_t length = int4_at(at);

        assert_int_equal(at[4], 1);
        copy_body(bodies[i], at + 5, length - 1);
        at += 4 + length;
    }
    return count;
}

/*
 * "[n]" is stored with n new events, "bad" is refused, "away" meets a locked table, and
 * "lost" gets no row, and "null" one without a count. The counts come in the reverse order.
 */
static enum database_verdict judge(struct database *db, const char bodies[][BODY_BYTES],
                                   size_t count, bool is_group)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(bodies[i], "away", 4) == 0) {
            db->sqlstate = "55P03";
            return DATABASE_AWAY;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (strncmp(bodies[i], "bad", 3) == 0) {
            db->sqlstate = "23514";
            return DATABASE_REFUSED;
        }
    }
    for (size_t i = count; i-- > 0;) {
        if (strncmp(bodies[i], "lost", 4) == 0)
            continue;
        db->cells[db->rows][0] = is_group ? (int64_t)i : strtoll(bodies[i] + 1, NULL, 10);
        db->cells[db->rows][1] = strtoll(bodies[i] + 1, NULL, 10);
        db->is_null[db->rows] = strncmp(bodies[i], "null", 4) == 0;
        db->rows++;
    }
    return DATABASE_DONE;
}

static enum database_verdict answer_in_order(struct database *db, const char *sql,
                                             const struct database_parameter *parameters,
                                             int64_t deadline)
{
    int number = atomic_load(&statement_count);
    struct statement *statement = &statements[number];

    assert_true(number < STATEMENTS_MOST);
    statement->deadline = deadline;
    atomic_store(&statement_count, number + 1);
    UNTIL(atomic_load(&allowed) > number);
    /* Not before: a member that has left must not be needed for it. */
    statement->batches = read_bodies(sql, parameters, statement->bodies);
    return judge(db, statement->bodies, statement->batches, strstr(sql, "batches") != NULL);
}

static void set_up(void)
{
    alarm(TEST_SECONDS);
    answer = answer_in_order;
    atomic_store(&statement_count, 0);
    memset(statements, 0, sizeof(statements));
    memset(senders, 0, sizeof(senders));
    sender_count = 0;
    *reported = '\0';
    atomic_store(&allowed, 0);
    tested = pool_new("unit", 1, WORKERS, FAR_MS);
    assert_non_null(tested);
}

static void tear_down(void)
{
    for (int i = 0; i < sender_count; i++)
        pthread_join(senders[i].thread, NULL);
    pool_free(tested);
    alarm(0);
}

static void report(const struct group_failure *failure)
{
    const unsigned char *at = failure->ids + 20;
    size_t used = strlen(reported);

    for (size_t count = int4_at(failure->ids + 12); count > 0; count--) {
        size_t length = int4_at(at);

        used += (size_t)snprintf(reported + used, sizeof(reported) - used, "%.*s ", (int)length,
                                 (const char *)at + 4);
        at += 4 + length;
    }
    snprintf(reported + used, sizeof(reported) - used, "%s", failure->sqlstate);
}

/* As a worker does, which reports failures after its reply, and then gives the connection back. */
static void store_as_worker(struct group_batch *batch, bool is_noted)
{
    group_store(tested, batch);
    if (batch->failure.ids != NULL && is_noted)
        report(&batch->failure);
    free(batch->failure.ids);
    if (batch->db != NULL)
        pool_give_back(tested, batch->db);
}

static void *store(void *arg)
{
    struct sender *sender = arg;

    store_as_worker(&sender->batch, true);
    /* What a worker does with a body next. */
    memset(sender->body, '?', sizeof(sender->body));
    atomic_store(&sender->is_done, true);
    return NULL;
}

/* Starts a sender, and waits until it is in the queue or its statement runs. */
static struct sender *post(const char *body, int64_t ms)
{
    struct sender *sender = &senders[sender_count++];
    int before = queued() + atomic_load(&statement_count);

    snprintf(sender->body, sizeof(sender->body), "%s", body);
    record_begin(&sender->record, body);
    sender->batch = (struct group_batch){.body = sender->body,
                                         .length = strlen(body),
                                         .events = 1,
                                         .deadline = clock_ms() + ms,
                                         .record = &sender->record};
    assert_int_equal(pthread_create(&sender->thread, NULL, store, sender), 0);
    UNTIL(queued() + atomic_load(&statement_count) > before);
    return sender;
}

static void open_database(void)
{
    atomic_store(&allowed, STATEMENTS_MOST);
}

static void is_answered(struct sender *sender, enum database_verdict verdict, int64_t inserted)
{
    UNTIL(atomic_load(&sender->is_done));
    assert_int_equal(sender->batch.verdict, verdict);
    assert_int_equal(sender->batch.inserted, inserted);
    assert_true(sender->record.spent_us >= 0);
}

static void was_sent(int number, size_t batches, const char *first)
{
    assert_int_equal(statements[number].batches, batches);
    assert_string_equal(statements[number].bodies[0], first);
}

static void a_batch_that_finds_a_free_connection_is_stored_alone(void **state)
{
    (void)state;
    set_up();
    open_database();
    is_answered(post("[7]", FAR_MS), DATABASE_DONE, 7);
    assert_int_equal(atomic_load(&statement_count), 1);
    was_sent(0, 1, "[7]");
    tear_down();
}

static void batches_that_waited_are_stored_by_one_statement_each_with_its_count(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS);
    struct sender *b = post("[20]", FAR_MS);
    struct sender *c = post("[30]", FAR_MS);

    open_database();
    is_answered(first, DATABASE_DONE, 1);
    is_answered(a, DATABASE_DONE, 10);
    is_answered(b, DATABASE_DONE, 20);
    is_answered(c, DATABASE_DONE, 30);
    assert_int_equal(atomic_load(&statement_count), 2);
    was_sent(1, 3, "[10]");
    assert_string_equal(statements[1].bodies[2], "[30]");
    tear_down();
}

static void a_group_runs_until_the_latest_deadline_of_its_members(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS);
    struct sender *b = post("[20]", FAR_MS + 5000);
    struct sender *c = post("[30]", FAR_MS);

    open_database();
    is_answered(first, DATABASE_DONE, 1);
    is_answered(a, DATABASE_DONE, 10);
    is_answered(c, DATABASE_DONE, 30);
    is_answered(b, DATABASE_DONE, 20);
    assert_int_equal(statements[1].deadline, b->batch.deadline);
    tear_down();
}

static void only_the_invalid_batches_of_a_group_are_refused(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS);
    struct sender *b = post("bad", FAR_MS);
    struct sender *c = post("[30]", FAR_MS);

    open_database();
    is_answered(first, DATABASE_DONE, 1);
    is_answered(a, DATABASE_DONE, 10);
    is_answered(b, DATABASE_REFUSED, 0);
    is_answered(c, DATABASE_DONE, 30);
    assert_string_equal(b->record.sqlstate, "23514");
    assert_string_equal(c->record.sqlstate, "");
    assert_int_equal(atomic_load(&statement_count), 5);
    tear_down();
}

static void a_shortage_answers_the_whole_group_after_one_statement(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS);
    struct sender *b = post("away", FAR_MS);

    open_database();
    is_answered(first, DATABASE_DONE, 1);
    is_answered(a, DATABASE_AWAY, 0);
    is_answered(b, DATABASE_AWAY, 0);
    assert_string_equal(a->record.sqlstate, "55P03");
    assert_int_equal(atomic_load(&statement_count), 2);
    tear_down();
    assert_string_equal(reported, "[10] away 55P03");
    assert_true(a->record.is_reported && b->record.is_reported);
}

/* Refuses groups, and any batch after the first is away. */
static enum database_verdict answer_first_alone(struct database *db, const char *sql,
                                                const struct database_parameter *parameters,
                                                int64_t deadline)
{
    enum database_verdict verdict = answer_in_order(db, sql, parameters, deadline);

    if (strstr(sql, "bulk_insert_batches") != NULL)
        return DATABASE_REFUSED;
    if (atomic_load(&statement_count) <= 3)
        return verdict;
    db->sqlstate = "53200";
    return DATABASE_AWAY;
}

/* The first of the group leads, and has a verdict of its own by then. */
static void end_a_split(const char *body, enum database_verdict verdict, int64_t inserted)
{
    set_up();
    answer = answer_first_alone;
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post(body, FAR_MS + 5000);
    struct sender *b = post("[20]", FAR_MS);
    struct sender *c = post("[30]", FAR_MS);

    open_database();
    is_answered(first, DATABASE_DONE, 1);
    is_answered(a, verdict, inserted);
    is_answered(b, DATABASE_AWAY, 0);
    is_answered(c, DATABASE_AWAY, 0);
    assert_int_equal(atomic_load(&statement_count), 4);
    tear_down();
    assert_string_equal(reported, "[20] [30] 53200");
    assert_true(b->record.is_reported && c->record.is_reported);
    assert_false(a->record.is_reported);
}

static void a_shortage_while_each_is_stored_alone_answers_the_rest(void **state)
{
    (void)state;
    end_a_split("[10]", DATABASE_DONE, 10);
}

static void a_leader_that_was_refused_reports_the_failure_of_the_rest(void **state)
{
    (void)state;
    end_a_split("bad", DATABASE_REFUSED, 0);
}

/* Refuses groups, and ends statements of one batch with its time if that is short. */
static enum database_verdict answer_until_deadline(struct database *db, const char *sql,
                                                   const struct database_parameter *parameters,
                                                   int64_t deadline)
{
    enum database_verdict verdict = answer_in_order(db, sql, parameters, deadline);

    if (strstr(sql, "bulk_insert_batches") != NULL)
        return DATABASE_REFUSED;
    if (clock_left(deadline) > FAR_MS / 2)
        return verdict;
    UNTIL(clock_left(deadline) < DATABASE_MARGIN_MS);
    db->sqlstate = "57014";
    return DATABASE_AWAY;
}

static void one_whose_time_is_over_while_each_is_stored_alone_ends_no_others(void **state)
{
    bool was_in_group = false;

    (void)state;
    for (int ms = SOON_MS; !was_in_group; ms *= 2) {
        set_up();
        answer = answer_until_deadline;
        struct sender *first = post("[1]", FAR_MS);
        struct sender *a = post("[10]", ms);
        struct sender *b = post("[20]", FAR_MS);

        open_database();
        is_answered(first, DATABASE_DONE, 1);
        is_answered(a, DATABASE_AWAY, 0);
        is_answered(b, DATABASE_DONE, 20);
        was_in_group = statements[1].batches == 2;
        tear_down();
    }
}

static void a_batch_without_a_row_has_failed_and_one_without_a_count_is_away(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS);
    struct sender *b = post("lost", FAR_MS);
    struct sender *c = post("null", FAR_MS);

    open_database();
    is_answered(first, DATABASE_DONE, 1);
    is_answered(a, DATABASE_DONE, 10);
    is_answered(b, DATABASE_FAILED, 0);
    is_answered(c, DATABASE_AWAY, 0);
    tear_down();
}

/* Lets the deadline of a member pass. */
static void end_patience(const struct sender *sender)
{
    pthread_mutex_lock(&tested->lock);
    for (struct pool_waiter *waiter = tested->followers; waiter != NULL;
         waiter = waiter->next_follower) {
        if (waiter->context == &sender->batch) {
            waiter->deadline = clock_ms();
            pthread_cond_signal(waiter->changed);
        }
    }
    pthread_mutex_unlock(&tested->lock);
}

static void leave_a_group(const char *other, enum database_verdict verdict, int64_t inserted,
                          int statements_sent)
{
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS - 1000);
    struct sender *b = post(other, FAR_MS);
    struct sender *c = post("[30]", FAR_MS);

    atomic_store(&allowed, 1);
    is_answered(first, DATABASE_DONE, 1);
    UNTIL(atomic_load(&statement_count) == 2);
    end_patience(a);
    is_answered(a, DATABASE_AWAY, 0);
    assert_false(atomic_load(&b->is_done));
    open_database();
    is_answered(b, verdict, inserted);
    is_answered(c, DATABASE_DONE, 30);
    assert_int_equal(a->batch.verdict, DATABASE_AWAY);
    /* Its bytes stay until the statement ends. */
    was_sent(1, 3, "[10]");
    assert_int_equal(atomic_load(&statement_count), statements_sent);
    tear_down();
}

static void one_leaves_a_group_at_its_deadline(void **state)
{
    (void)state;
    leave_a_group("[20]", DATABASE_DONE, 20, 2);
}

static void one_that_has_left_is_not_stored_alone(void **state)
{
    (void)state;
    leave_a_group("bad", DATABASE_REFUSED, 0, 4);
}

static void the_bytes_of_one_that_leaves_stay_while_it_is_stored_alone(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", FAR_MS - 1000);
    struct sender *b = post("bad", FAR_MS);

    atomic_store(&allowed, 2);
    is_answered(first, DATABASE_DONE, 1);
    UNTIL(atomic_load(&statement_count) == 3);
    end_patience(a);
    is_answered(a, DATABASE_AWAY, 0);
    open_database();
    is_answered(b, DATABASE_REFUSED, 0);
    was_sent(2, 1, "[10]");
    tear_down();
}

static void a_batch_whose_deadline_passes_in_the_queue_is_away(void **state)
{
    (void)state;
    set_up();
    struct sender *first = post("[1]", FAR_MS);
    struct sender *a = post("[10]", SOON_MS);

    is_answered(a, DATABASE_AWAY, 0);
    open_database();
    is_answered(first, DATABASE_DONE, 1);
    assert_int_equal(atomic_load(&statement_count), 1);
    tear_down();
}

/* A database of a moment's work, now and then without an answer in time. */
static atomic_int at_work;
static atomic_int groups;

static enum database_verdict answer_at_random(struct database *db, const char *sql,
                                              const struct database_parameter *parameters,
                                              int64_t deadline)
{
    char bodies[ROWS_MOST][BODY_BYTES];
    size_t count = read_bodies(sql, parameters, bodies);
    unsigned seed = (unsigned)clock_us();
    int chance = rand_r(&seed) % 20;
    enum database_verdict verdict;

    (void)deadline;
    assert_false(db->is_late);
    assert_true(atomic_fetch_add(&at_work, 1) < RANDOM_CONNECTIONS);
    atomic_fetch_add(&groups, count > 1);
    usleep((useconds_t)(chance * 100));
    if (chance == 0)
        db->limits->note_away(db->limits->context, true);
    verdict = judge(db, bodies, count, strstr(sql, "batches") != NULL);
    if (chance == 1) {
        db->is_late = true;
        verdict = DATABASE_AWAY;
    }
    db->limits->note_away(db->limits->context, false);
    atomic_fetch_sub(&at_work, 1);
    return verdict;
}

static void *store_many(void *arg)
{
    unsigned seed = RANDOM_SEED + *(const unsigned *)arg;
    int away = 0;

    for (int i = 0; i < RANDOM_BATCHES; i++) {
        struct record record = {.spent_us = -1};
        char body[BODY_BYTES];
        int number = rand_r(&seed) % 1000000;
        bool is_bad = rand_r(&seed) % 20 == 0;
        struct group_batch batch = {.body = body,
                                    .events = 1 + (size_t)rand_r(&seed) % 300,
                                    .deadline = clock_ms() + rand_r(&seed) % 20,
                                    .record = &record};

        if (rand_r(&seed) % 3 > 0)
            batch.deadline += FAR_MS;
        batch.length = (size_t)snprintf(body, sizeof(body), is_bad ? "bad%d" : "[%d]", number);
        store_as_worker(&batch, false);
        memset(body, '?', sizeof(body));
        if (batch.verdict == DATABASE_DONE)
            assert_int_equal(is_bad ? -1 : batch.inserted, number);
        else if (batch.verdict == DATABASE_REFUSED)
            assert_true(is_bad);
        else
            assert_int_equal(batch.verdict, DATABASE_AWAY);
        away += batch.verdict == DATABASE_AWAY;
        if (rand_r(&seed) % 10 == 0) {
            struct database *db = pool_take(tested, batch.deadline);

            if (db != NULL)
                pool_give_back(tested, db);
        }
    }
    /* Most are stored. */
    assert_true(away < RANDOM_BATCHES * 3 / 4);
    return NULL;
}

static void each_of_many_gets_its_own_verdict_from_few_connections(void **state)
{
    pthread_t threads[WORKERS];
    unsigned numbers[WORKERS];

    (void)state;
    set_up();
    pool_free(tested);
    answer = answer_at_random;
    atomic_store(&groups, 0);
    tested = pool_new("unit", RANDOM_CONNECTIONS, 2 * WORKERS, FAR_MS);
    for (unsigned i = 0; i < WORKERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, store_many, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&groups) > 100);
    /* All have left, and every connection is back or being cancelled. */
    pthread_mutex_lock(&tested->lock);
    assert_null(tested->first);
    assert_null(tested->followers);
    assert_int_equal(tested->waiting + tested->follower_count, 0);
    assert_int_equal(tested->free_count + tested->late_count, RANDOM_CONNECTIONS);
    pthread_mutex_unlock(&tested->lock);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_that_finds_a_free_connection_is_stored_alone),
        cmocka_unit_test(batches_that_waited_are_stored_by_one_statement_each_with_its_count),
        cmocka_unit_test(a_group_runs_until_the_latest_deadline_of_its_members),
        cmocka_unit_test(only_the_invalid_batches_of_a_group_are_refused),
        cmocka_unit_test(a_shortage_answers_the_whole_group_after_one_statement),
        cmocka_unit_test(a_shortage_while_each_is_stored_alone_answers_the_rest),
        cmocka_unit_test(a_leader_that_was_refused_reports_the_failure_of_the_rest),
        cmocka_unit_test(one_whose_time_is_over_while_each_is_stored_alone_ends_no_others),
        cmocka_unit_test(a_batch_without_a_row_has_failed_and_one_without_a_count_is_away),
        cmocka_unit_test(one_leaves_a_group_at_its_deadline),
        cmocka_unit_test(one_that_has_left_is_not_stored_alone),
        cmocka_unit_test(the_bytes_of_one_that_leaves_stay_while_it_is_stored_alone),
        cmocka_unit_test(a_batch_whose_deadline_passes_in_the_queue_is_away),
        cmocka_unit_test(each_of_many_gets_its_own_verdict_from_few_connections),
    };

    return cmocka_run_group_tests_name("group", tests, NULL, NULL);
}
