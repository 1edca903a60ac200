#include "process/strangers.h"

#include "unit.h"

#include <pthread.h>

/* Each test has a kind, and with it a second, of its own. */

static void a_first_request_has_a_line(void **state)
{
    uint64_t left_out = 99;

    (void)state;
    assert_true(strangers_take_line(ERROR_UNKNOWN_SOURCE, 1000, &left_out));
    assert_int_equal(left_out, 0);
}

static void a_kind_has_one_line_a_second_with_the_number_left_out_since(void **state)
{
    enum error kind = ERROR_INVALID_SIGNATURE;
    uint64_t left_out = 99;

    (void)state;
    assert_true(strangers_take_line(kind, 1000, &left_out));
    for (int64_t now = 1000; now < 2000; now += 100)
        assert_false(strangers_take_line(kind, now, &left_out));
    assert_true(strangers_take_line(kind, 2000, &left_out));
    assert_int_equal(left_out, 10);
    assert_false(strangers_take_line(kind, 2999, &left_out));
    assert_true(strangers_take_line(kind, 90000, &left_out));
    assert_int_equal(left_out, 1);
    assert_true(strangers_take_line(kind, 91000, &left_out));
    assert_int_equal(left_out, 0);
}

static void kinds_do_not_share_their_lines(void **state)
{
    uint64_t left_out;

    (void)state;
    assert_true(strangers_take_line(ERROR_MISSING_TOKEN, 1000, &left_out));
    assert_true(strangers_take_line(ERROR_MISSING_SIGNATURE, 1000, &left_out));
    assert_true(strangers_take_line(ERROR_UNAVAILABLE, 1000, &left_out));
    assert_false(strangers_take_line(ERROR_MISSING_TOKEN, 1000, &left_out));
}

static void what_nothing_follows_has_a_line_later(void **state)
{
    enum error kind = ERROR_INVALID_TOKEN;
    uint64_t left_out = 99;

    (void)state;
    assert_false(strangers_take_rest(kind, 1000, &left_out));
    assert_true(strangers_take_line(kind, 1000, &left_out));
    assert_false(strangers_take_rest(kind, 5000, &left_out));
    assert_true(strangers_take_line(kind, 5000, &left_out));
    assert_false(strangers_take_line(kind, 5001, &left_out));
    assert_false(strangers_take_line(kind, 5002, &left_out));
    assert_false(strangers_take_rest(kind, 5000 + STRANGERS_REST_MS - 1, &left_out));
    assert_true(strangers_take_rest(kind, 5000 + STRANGERS_REST_MS, &left_out));
    assert_int_equal(left_out, 2);
    assert_false(strangers_take_line(kind, 7999, &left_out));
    assert_false(strangers_take_rest(kind, 7000 + STRANGERS_REST_MS - 1, &left_out));
    assert_true(strangers_take_rest(kind, 7000 + STRANGERS_REST_MS, &left_out));
    assert_int_equal(left_out, 1);
}

/* A look each second, just before the request that may have the line. */
static void no_request_of_a_steady_stream_loses_its_line_to_the_rest(void **state)
{
    enum error kind = ERROR_PAYLOAD_TOO_LARGE;
    int lines = 0;

    (void)state;
    for (int64_t now = 1000; now < 11000; now += 200) {
        uint64_t left_out;

        if (now % 1000 == 0)
            assert_false(strangers_take_rest(kind, now, &left_out));
        lines += strangers_take_line(kind, now, &left_out);
    }
    assert_int_equal(lines, 10);
}

enum { THREADS = 4, REQUESTS = 20000 };

static void *flood(void *arg)
{
    uint64_t *told = arg;

    for (int64_t i = 0; i < REQUESTS; i++) {
        uint64_t left_out;

        if (strangers_take_line(ERROR_METHOD_NOT_ALLOWED, i, &left_out))
            *told += 1 + left_out;
    }
    return NULL;
}

static void no_request_is_counted_twice_or_not_at_all(void **state)
{
    pthread_t threads[THREADS];
    uint64_t told[THREADS] = {0};
    uint64_t sum = 0, left_out = 0;

    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, flood, &told[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sum += told[i];
    }
    if (strangers_take_rest(ERROR_METHOD_NOT_ALLOWED, 10 * REQUESTS, &left_out))
        sum += left_out;
    assert_int_equal(sum, THREADS * REQUESTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_request_has_a_line),
        cmocka_unit_test(a_kind_has_one_line_a_second_with_the_number_left_out_since),
        cmocka_unit_test(kinds_do_not_share_their_lines),
        cmocka_unit_test(what_nothing_follows_has_a_line_later),
        cmocka_unit_test(no_request_of_a_steady_stream_loses_its_line_to_the_rest),
        cmocka_unit_test(no_request_is_counted_twice_or_not_at_all),
    };

    return cmocka_run_group_tests_name("strangers", tests, NULL, NULL);
}
