#include "monitor/answer.h"
#include "unit.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static struct answer answer;

static const time_t NOW = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example */

/* Judges a whole answer to a batch of so many events. */
static void judge(int status, const char *body, size_t events)
{
    const struct post_answer post = {
        .status = status,
        .is_whole = status != 0,
        .body = body,
        .length = strlen(body),
    };

    answer_judge(&post, events, NOW, &answer);
}

static void assert_action(int status, const char *body, enum answer_action action)
{
    judge(status, body, 3);
    assert_int_equal(answer.action, action);
}

static void assert_wait(int status, const char *body, int64_t wait_ms)
{
    assert_action(status, body, ANSWER_WAIT);
    assert_int_equal(answer.wait_ms, wait_ms);
    assert_string_not_equal(answer.detail, "");
}

static void does_what_each_status_asks_for(void **state)
{
    (void)state;
    assert_action(200, "{\"inserted\":3,\"duplicates\":0,\"message\":\"x\"}", ANSWER_FORGET);
    assert_action(400, "{\"error\":\"invalid_request\",\"message\":\"m\"}", ANSWER_SET_ASIDE);
    assert_string_equal(answer.code, "invalid_request");
    assert_string_equal(answer.message, "m");
    assert_action(400, "", ANSWER_SET_ASIDE);
    assert_string_equal(answer.code, "http_400");
    assert_action(413, "", ANSWER_HALVE);
    for (int status = 300; status < 400; status++)
        assert_wait(status, "", ANSWER_SLOW_MS);
    assert_wait(401, "{\"error\":\"unknown_source\"}", ANSWER_SLOW_MS);
    assert_wait(403, "", ANSWER_SLOW_MS);
    assert_wait(404, "", ANSWER_SLOW_MS);
    assert_wait(405, "", ANSWER_SLOW_MS);
    assert_wait(418, "", ANSWER_SLOW_MS);
    assert_wait(201, "{\"inserted\":3}", ANSWER_SLOW_MS);
    assert_wait(204, "", ANSWER_SLOW_MS);
    assert_wait(0, "", -1);
    assert_wait(408, "", -1);
    assert_wait(500, "", -1);
    assert_wait(502, "", -1);
    assert_wait(504, "", -1);
    assert_wait(429, "", -1);
    assert_wait(503, "", -1);
}

static void believes_a_200_that_can_be_read(void **state)
{
    (void)state;
    assert_action(200, "{\"inserted\":0,\"duplicates\":3}\n", ANSWER_FORGET);
    assert_action(200, "{\"inserted\":3}", ANSWER_FORGET);
    assert_wait(200, "", -1);
    assert_wait(200, "<html>", -1);
    assert_wait(200, "{\"inserted\":3", -1);
    assert_wait(200, "{\"inserted\":3} x", -1);
    assert_wait(200, "[{\"inserted\":3}]", -1);
    assert_wait(200, "{\"inserted\":4}", -1);
    assert_wait(200, "{\"inserted\":-1}", -1);
    assert_wait(200, "{\"inserted\":\"3\"}", -1);
    assert_wait(200, "{\"inserted\":3.0}", -1);
    assert_wait(200, "{\"duplicates\":3}", -1);
    assert_wait(200, "null", -1);
}

static void reads_which_events_are_refused(void **state)
{
    (void)state;
    judge(422,
          "{\"error\":\"invalid_event_id\",\"message\":\"m\",\"index\":0,\"rejected\":["
          "{\"index\":0,\"error\":\"invalid_event_id\",\"message\":\"a\"},"
          "{\"index\":2,\"error\":\"invalid_payload\",\"message\":\"b\"}]}",
          3);
    assert_int_equal(answer.action, ANSWER_SET_ASIDE_LISTED);
    assert_int_equal(answer.rejected_count, 2);
    assert_int_equal(answer.rejected[0].index, 0);
    assert_string_equal(answer.rejected[0].code, "invalid_event_id");
    assert_int_equal(answer.rejected[1].index, 2);
    assert_string_equal(answer.rejected[1].message, "b");
}

static void halves_for_a_list_that_cannot_be_believed(void **state)
{
    static const char *const LISTS[] = {
        "[]",
        "{}",
        "[0]",
        "[{}]",
        "[{\"index\":0}]",
        "[{\"index\":3,\"error\":\"x\"}]",
        "[{\"index\":-1,\"error\":\"x\"}]",
        "[{\"index\":\"0\",\"error\":\"x\"}]",
        "[{\"index\":1,\"error\":\"x\"},{\"index\":1,\"error\":\"x\"}]",
        "[{\"index\":1,\"error\":\"x\"},{\"index\":0,\"error\":\"x\"}]",
        "[{\"index\":0,\"error\":\"x\"},{\"index\":1}]",
        "[{\"index\":0,\"error\":7}]",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(LISTS) / sizeof(LISTS[0]); i++) {
        char body[256];

        snprintf(body, sizeof(body), "{\"error\":\"x\",\"rejected\":%s}", LISTS[i]);
        assert_action(422, body, ANSWER_HALVE);
    }
    assert_action(422, "", ANSWER_HALVE);
    assert_action(422, "{\"error\":\"x\"}", ANSWER_HALVE);
}

static void halves_a_batch_that_has_too_many_nodes(void **state)
{
    static const char BODY[] = "{\"error\":\"batch_too_large\",\"message\":\"m\"}";
    (void)state;
    assert_action(400, BODY, ANSWER_HALVE);
    judge(400, BODY, 1);
    assert_int_equal(answer.action, ANSWER_SET_ASIDE);
}

static void sets_nothing_aside_for_an_answer_that_broke_off(void **state)
{
    struct post_answer post = {.body = "", .failure = "torn"};
    (void)state;
    for (post.status = 200; post.status < 600; post.status++) {
        answer_judge(&post, 1, NOW, &answer);
        assert_int_equal(answer.action, ANSWER_WAIT);
    }
    /* A server that ends the connection after a 413 still means it. */
    post.status = 413;
    answer_judge(&post, 2, NOW, &answer);
    assert_int_equal(answer.action, ANSWER_HALVE);
}

static void waits_as_retry_after_says(void **state)
{
    struct post_answer post = {.status = 503, .is_whole = true, .body = "", .retry_after = "7"};
    (void)state;
    answer_judge(&post, 1, NOW, &answer);
    assert_int_equal(answer.wait_ms, 7000);
    post.status = 429;
    answer_judge(&post, 1, NOW, &answer);
    assert_int_equal(answer.wait_ms, 7000);
    /* Elsewhere it means nothing. */
    post.status = 500;
    answer_judge(&post, 1, NOW, &answer);
    assert_int_equal(answer.wait_ms, -1);
}

static void reads_seconds_and_dates(void **state)
{
    (void)state;
    assert_int_equal(answer_retry_after("120", NOW), 120000);
    assert_int_equal(answer_retry_after("0", NOW), 1000);
    assert_int_equal(answer_retry_after("3601", NOW), 3600000);
    assert_int_equal(answer_retry_after("99999999999999999999999", NOW), 3600000);
    assert_int_equal(answer_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", NOW), 60000);
    assert_int_equal(answer_retry_after("Sunday, 06-Nov-94 08:50:37 GMT", NOW), 60000);
    assert_int_equal(answer_retry_after("Sun Nov  6 08:50:37 1994", NOW), 60000);
    assert_int_equal(answer_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", NOW), 1000);
    assert_int_equal(answer_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", NOW), 3600000);
    assert_int_equal(answer_retry_after("", NOW), -1);
    assert_int_equal(answer_retry_after("soon", NOW), -1);
    assert_int_equal(answer_retry_after("-5", NOW), -1);
    assert_int_equal(answer_retry_after("5 s", NOW), -1);
    assert_int_equal(answer_retry_after("1.5", NOW), -1);
    assert_int_equal(answer_retry_after("Sun, 06 Nov 1994 08:50:37 GMT x", NOW), -1);
}

static void backs_off_with_full_jitter(void **state)
{
    static const int64_t MOST[] = {1000,  2000,  4000,   8000,   16000,
                                   32000, 64000, 128000, 256000, 300000};
    (void)state;
    for (unsigned failures = 1; failures <= 10; failures++) {
        int64_t lowest = INT64_MAX;
        int64_t highest = 0;

        for (int i = 0; i < 2000; i++) {
            int64_t ms = answer_backoff(failures);

            lowest = ms < lowest ? ms : lowest;
            highest = ms > highest ? ms : highest;
        }
        /* Missing a tenth of the range 2000 times has a chance of 1e-91. */
        assert_true(lowest >= 0 && lowest < MOST[failures - 1] / 10);
        assert_true(highest <= MOST[failures - 1] && highest > MOST[failures - 1] / 10 * 9);
    }
    assert_true(answer_backoff(1000000000) <= 300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_what_each_status_asks_for),
        cmocka_unit_test(believes_a_200_that_can_be_read),
        cmocka_unit_test(reads_which_events_are_refused),
        cmocka_unit_test(halves_for_a_list_that_cannot_be_believed),
        cmocka_unit_test(halves_a_batch_that_has_too_many_nodes),
        cmocka_unit_test(sets_nothing_aside_for_an_answer_that_broke_off),
        cmocka_unit_test(waits_as_retry_after_says),
        cmocka_unit_test(reads_seconds_and_dates),
        cmocka_unit_test(backs_off_with_full_jitter),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
