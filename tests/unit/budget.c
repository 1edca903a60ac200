#include "http/budget.h"
#include "base/clock.h"
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { SOON_MS = 50, LATE_MS = 60000, HALF = BUDGET_BYTES / 2, QUARTER = BUDGET_BYTES / 4 };

static void gives_out_all_of_it_and_no_more(void **state)
{
    (void)state;
    assert_true(budget_take(BUDGET_BYTES, clock_ms()));
    assert_false(budget_take(BUDGET_SMALL_BYTES + 1, clock_ms() + SOON_MS));
    budget_give_back(BUDGET_BYTES);
    assert_true(budget_take(HALF, clock_ms()));
    assert_true(budget_take(HALF, clock_ms()));
    assert_false(budget_take(HALF, clock_ms()));
    budget_give_back(HALF);
    budget_give_back(HALF);
}

static void waits_until_the_deadline(void **state)
{
    int64_t begun = clock_ms();

    (void)state;
    assert_true(budget_take(BUDGET_BYTES, begun));
    assert_false(budget_take(BUDGET_BYTES, begun + SOON_MS));
    assert_true(clock_ms() >= begun + SOON_MS);
    budget_give_back(BUDGET_BYTES);
}

static void does_not_count_small_bodies(void **state)
{
    (void)state;
    assert_true(budget_take(BUDGET_BYTES, clock_ms()));
    assert_true(budget_take(BUDGET_SMALL_BYTES, clock_ms()));
    assert_true(budget_take(0, clock_ms()));
    budget_give_back(0);
    budget_give_back(BUDGET_SMALL_BYTES);
    budget_give_back(BUDGET_BYTES);
    assert_true(budget_take(BUDGET_BYTES, clock_ms()));
    budget_give_back(BUDGET_BYTES);
}

static void gives_what_grows_its_share_at_once_or_not_at_all(void **state)
{
    size_t share = 0;

    (void)state;
    assert_true(budget_resize(0, BUDGET_SMALL_BYTES));
    assert_true(budget_resize(BUDGET_SMALL_BYTES, HALF));
    assert_true(budget_resize(HALF, BUDGET_BYTES));
    assert_false(budget_resize(0, BUDGET_SMALL_BYTES + 1));
    assert_true(budget_resize(0, BUDGET_SMALL_BYTES));
    assert_false(budget_resize(BUDGET_BYTES, BUDGET_BYTES + 1));
    assert_true(budget_resize(BUDGET_BYTES, HALF));
    assert_true(budget_take(HALF, clock_ms()));
    assert_false(budget_resize(HALF, HALF + 1));
    budget_give_back(HALF);
    assert_true(budget_resize(HALF, 0));
    /* In steps of any size, all of it comes back. */
    for (size_t step = 1; share + step <= BUDGET_BYTES; step = step * 3 + 1) {
        assert_true(budget_resize(share, share + step));
        share += step;
    }
    assert_true(budget_resize(share, 0));
    assert_true(budget_take(BUDGET_BYTES, clock_ms()));
    budget_give_back(BUDGET_BYTES);
}

/* One that waits in the queue, in a thread of its own. */
struct waiter {
    size_t bytes;
    int64_t deadline;
    pthread_t thread;
    atomic_int id; /* of the thread, from when on it does nothing but wait; 0 before */
    bool is_served;
    int turn; /* in which it was served or left, from 1 */
};

static atomic_int turns;

static void *wait_for_it(void *arg)
{
    struct waiter *waiter = arg;

    waiter->id = gettid();
    waiter->is_served = budget_take(waiter->bytes, waiter->deadline);
    waiter->turn = ++turns;
    if (waiter->is_served)
        budget_give_back(waiter->bytes);
    return NULL;
}

/* Or has left already. */
static bool is_asleep(int thread)
{
    char path[64];
    char state = '?';
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
    file = fopen(path, "r");
    if (file == NULL)
        return true;
    assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    return state == 'S';
}

/* Returns when it is in the queue. */
static void begin(struct waiter *waiter, size_t bytes, int64_t deadline)
{
    waiter->bytes = bytes;
    waiter->deadline = deadline;
    waiter->id = 0;
    assert_int_equal(pthread_create(&waiter->thread, NULL, wait_for_it, waiter), 0);
    while (waiter->id == 0 || !is_asleep(waiter->id))
        clock_sleep_jitter(1);
}

static void end(struct waiter *waiter)
{
    assert_int_equal(pthread_join(waiter->thread, NULL), 0);
}

static void lets_nobody_overtake_one_that_needs_more(void **state)
{
    struct waiter large, little;

    (void)state;
    turns = 0;
    assert_true(budget_take(HALF, clock_ms()));
    begin(&large, BUDGET_BYTES, clock_ms() + LATE_MS);
    begin(&little, QUARTER, clock_ms() + LATE_MS);
    assert_int_equal(turns, 0);
    budget_give_back(HALF);
    end(&large);
    end(&little);
    assert_true(large.is_served && little.is_served);
    assert_int_equal(large.turn, 1);
}

static void serves_the_next_when_the_first_has_left(void **state)
{
    struct waiter large, little;

    (void)state;
    turns = 0;
    assert_true(budget_take(HALF, clock_ms()));
    begin(&large, BUDGET_BYTES, clock_ms() + SOON_MS);
    begin(&little, QUARTER, clock_ms() + LATE_MS);
    end(&large);
    end(&little);
    assert_false(large.is_served);
    assert_true(little.is_served);
    budget_give_back(HALF);
}

enum { THREADS = 8, ROUNDS = 2000 };

static atomic_size_t held;

static void *take_and_give_back(void *arg)
{
    size_t bytes = *(const size_t *)arg;

    for (int i = 0; i < ROUNDS; i++) {
        if (!budget_take(bytes, clock_ms() + LATE_MS))
            continue;
        if (atomic_fetch_add(&held, bytes) + bytes > BUDGET_BYTES)
            atomic_fetch_add(&turns, 1);
        atomic_fetch_sub(&held, bytes);
        budget_give_back(bytes);
    }
    return NULL;
}

static void never_gives_out_more_than_it_has(void **state)
{
    static size_t sizes[THREADS] = {QUARTER, HALF,    QUARTER + 1, BUDGET_BYTES,
                                    HALF,    QUARTER, HALF + 1,    BUDGET_SMALL_BYTES + 1};
    pthread_t threads[THREADS];

    (void)state;
    turns = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give_back, &sizes[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(turns, 0);
    assert_true(budget_take(BUDGET_BYTES, clock_ms()));
    budget_give_back(BUDGET_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_out_all_of_it_and_no_more),
        cmocka_unit_test(waits_until_the_deadline),
        cmocka_unit_test(does_not_count_small_bodies),
        cmocka_unit_test(gives_what_grows_its_share_at_once_or_not_at_all),
        cmocka_unit_test(lets_nobody_overtake_one_that_needs_more),
        cmocka_unit_test(serves_the_next_when_the_first_has_left),
        cmocka_unit_test(never_gives_out_more_than_it_has),
    };

    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
