#include "process/results.h"

#include "unit.h"

/* The tests share the results, and run in this order. */

static void without_results_nothing_failed(void **state)
{
    (void)state;
    assert_false(results_all_failed(1000));
    assert_false(results_last_failed());
    assert_int_equal(results_succeeded_at(), 0);
}

static void before_a_success_one_failure_is_all(void **state)
{
    (void)state;
    results_note(ERROR_INTERNAL, 1000);
    assert_true(results_all_failed(1000));
    assert_true(results_last_failed());
}

static void the_first_success_ends_it(void **state)
{
    (void)state;
    results_note(ERROR_NONE, 2000);
    assert_false(results_all_failed(2000));
    assert_false(results_last_failed());
    assert_int_equal(results_succeeded_at(), 2000);
}

static void three_failures_in_a_row_are_all(void **state)
{
    (void)state;
    results_note(ERROR_UNAVAILABLE, 3000);
    results_note(ERROR_INTERNAL, 3001);
    assert_false(results_all_failed(3002));
    assert_true(results_last_failed());
    results_note(ERROR_UNAVAILABLE, 3002);
    assert_true(results_all_failed(3002));
    for (int i = 0; i < 1000; i++)
        results_note(ERROR_INTERNAL, 3003);
    assert_true(results_all_failed(3003));
    results_note(ERROR_NONE, 3004);
    assert_false(results_all_failed(3004));
}

static void failures_with_a_success_between_them_are_not_all(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        results_note(ERROR_INTERNAL, 4000);
        results_note(ERROR_INTERNAL, 4000);
        results_note(ERROR_NONE, 4000);
    }
    results_note(ERROR_INTERNAL, 4001);
    assert_false(results_all_failed(4001));
}

static void what_the_sender_decides_is_neither(void **state)
{
    static const enum error REFUSALS[] = {ERROR_INVALID_PAYLOAD, ERROR_INVALID_REQUEST,
                                          ERROR_INVALID_EVENT};

    (void)state;
    results_note(ERROR_NONE, 5000);
    for (size_t i = 0; i < sizeof(REFUSALS) / sizeof(REFUSALS[0]); i++)
        results_note(REFUSALS[i], 5001);
    assert_false(results_last_failed());
    assert_int_equal(results_succeeded_at(), 5000);
    for (int i = 0; i < 3; i++) {
        results_note(ERROR_INTERNAL, 5002);
        results_note(ERROR_INVALID_PAYLOAD, 5002);
    }
    assert_true(results_all_failed(5002));
}

static void after_15_seconds_failures_are_not_recent(void **state)
{
    (void)state;
    assert_true(results_all_failed(5002 + 15000));
    assert_false(results_all_failed(5002 + 15001));
    results_note(ERROR_UNAVAILABLE, 30000);
    assert_true(results_all_failed(30000));
}

static void a_probe_that_succeeds_does_not_end_failures_of_requests_alone(void **state)
{
    (void)state;
    results_note(ERROR_NONE, 40000);
    for (int i = 0; i < 3; i++) {
        results_note(ERROR_INTERNAL, 40001);
        results_note_probe(ERROR_NONE, 40001);
    }
    assert_true(results_all_failed(40001));
    assert_false(results_last_failed());
    assert_int_equal(results_succeeded_at(), 40001);
    results_note(ERROR_NONE, 40002);
    assert_false(results_all_failed(40002));
}

static void a_probe_that_failed_and_succeeds_ends_all_failures(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        results_note(ERROR_INTERNAL, 50000);
    results_note_probe(ERROR_INTERNAL, 50001);
    assert_true(results_all_failed(50001));
    results_note_probe(ERROR_NONE, 50002);
    assert_false(results_all_failed(50002));
    /* This success ended the probe's part in what comes later. */
    for (int i = 0; i < 3; i++)
        results_note(ERROR_INTERNAL, 50003);
    results_note_probe(ERROR_NONE, 50004);
    assert_true(results_all_failed(50004));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_results_nothing_failed),
        cmocka_unit_test(before_a_success_one_failure_is_all),
        cmocka_unit_test(the_first_success_ends_it),
        cmocka_unit_test(three_failures_in_a_row_are_all),
        cmocka_unit_test(failures_with_a_success_between_them_are_not_all),
        cmocka_unit_test(what_the_sender_decides_is_neither),
        cmocka_unit_test(after_15_seconds_failures_are_not_recent),
        cmocka_unit_test(a_probe_that_succeeds_does_not_end_failures_of_requests_alone),
        cmocka_unit_test(a_probe_that_failed_and_succeeds_ends_all_failures),
    };

    return cmocka_run_group_tests_name("results", tests, NULL, NULL);
}
