#include "monitor/answer.h"
#include "unit.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static struct answer answer;

static const time_t NOW = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example */

/* Reads a complete response to a batch of so many events. */
static void read_answer(int status, const char *body, size_t events)
{
    const struct post_response response = {
        .status = status,
        .is_complete = status != 0,
        .body = body,
        .length = strlen(body),
    };

    answer_read(&response, events, NOW, &answer);
}

static void assert_action(int status, const char *body, enum answer_action action)
{
    read_answer(status, body, 3);
    assert_int_equal(answer.action, action);
}

static void assert_retry(int status, const char *body, int64_t retry_ms)
{
    assert_action(status, body, ANSWER_RETRY);
    assert_int_equal(answer.retry_ms, retry_ms);
    assert_string_not_equal(answer.detail, "");
}

static void chooses_an_action_for_each_status(void **state)
{
    (void)state;
    assert_action(200, "{\"inserted\":3,\"duplicates\":0,\"message\":\"x\"}", ANSWER_STORED);
    assert_action(400, "{\"error\":\"invalid_request\",\"message\":\"m\"}", ANSWER_HALVE);
    assert_string_equal(answer.code, "invalid_request");
    assert_string_equal(answer.message, "m");
    assert_action(400, "", ANSWER_HALVE);
    assert_string_equal(answer.code, "http_400");
    assert_action(413, "", ANSWER_HALVE);
    for (int status = 300; status < 400; status++)
        assert_retry(status, "", ANSWER_SLOW_RETRY_MS);
    assert_retry(401, "{\"error\":\"unknown_source\"}", ANSWER_SLOW_RETRY_MS);
    assert_retry(403, "", ANSWER_SLOW_RETRY_MS);
    assert_retry(404, "", ANSWER_SLOW_RETRY_MS);
    assert_retry(405, "", ANSWER_SLOW_RETRY_MS);
    assert_retry(418, "", ANSWER_SLOW_RETRY_MS);
    assert_retry(201, "{\"inserted\":3}", ANSWER_SLOW_RETRY_MS);
    assert_retry(204, "", ANSWER_SLOW_RETRY_MS);
    assert_retry(0, "", -1);
    assert_retry(408, "", -1);
    assert_retry(500, "", -1);
    assert_retry(502, "", -1);
    assert_retry(504, "", -1);
    assert_retry(429, "", -1);
    assert_retry(503, "", -1);
}

static void accepts_a_200_only_with_a_valid_body(void **state)
{
    (void)state;
    assert_action(200, "{\"inserted\":0,\"duplicates\":3}\n", ANSWER_STORED);
    assert_action(200, "{\"inserted\":3}", ANSWER_STORED);
    assert_action(200, "{\"inserted\":3,\"message\":\"\303\274bernommen\"}", ANSWER_STORED);
    assert_retry(200, "{\"inserted\":3,\"message\":\"\374bernommen\"}", -1);
    assert_retry(200, "", -1);
    assert_retry(200, "<html>", -1);
    assert_retry(200, "{\"inserted\":3", -1);
    assert_retry(200, "{\"inserted\":3} x", -1);
    assert_retry(200, "[{\"inserted\":3}]", -1);
    assert_retry(200, "{\"inserted\":4}", -1);
    assert_retry(200, "{\"inserted\":-1}", -1);
    assert_retry(200, "{\"inserted\":\"3\"}", -1);
    assert_retry(200, "{\"inserted\":3.0}", -1);
    assert_retry(200, "{\"duplicates\":3}", -1);
    assert_retry(200, "null", -1);
}

static void reads_the_list_of_rejected_events(void **state)
{
    (void)state;
    read_answer(422,
                "{\"error\":\"invalid_event_id\",\"message\":\"m\",\"index\":0,\"rejected\":["
                "{\"index\":0,\"error\":\"invalid_event_id\",\"message\":\"a\"},"
                "{\"index\":2,\"error\":\"invalid_payload\",\"message\":\"b\"}]}",
                3);
    assert_int_equal(answer.action, ANSWER_REJECT_LISTED);
    assert_int_equal(answer.rejected_count, 2);
    assert_int_equal(answer.rejected[0].index, 0);
    assert_string_equal(answer.rejected[0].code, "invalid_event_id");
    assert_int_equal(answer.rejected[1].index, 2);
    assert_string_equal(answer.rejected[1].message, "b");
}

static void halves_the_batch_if_the_list_is_invalid(void **state)
{
    static const char *const LISTS[] = {
        "[]",
        "{}",
        "[0]",
        "[{}]",
        "[{\"index\":0}]",
        "[{\"index\":3,\"error\":\"invalid_payload\"}]",
        "[{\"index\":-1,\"error\":\"invalid_payload\"}]",
        "[{\"index\":\"0\",\"error\":\"invalid_payload\"}]",
        "[{\"index\":1,\"error\":\"invalid_payload\"},{\"index\":1,\"error\":\"invalid_payload\"}]",
        "[{\"index\":1,\"error\":\"invalid_payload\"},{\"index\":0,\"error\":\"invalid_payload\"}]",
        "[{\"index\":0,\"error\":\"invalid_payload\"},{\"index\":1}]",
        "[{\"index\":0,\"error\":7}]",
        "[{\"index\":0,\"error\":\"bad_request\"}]",
        "[{\"index\":0,\"error\":\"invalid_request\"}]",
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

static void halves_a_batch_with_too_many_nodes(void **state)
{
    static const char BODY[] = "{\"error\":\"batch_too_large\",\"message\":\"m\"}";
    (void)state;
    assert_action(400, BODY, ANSWER_HALVE);
    read_answer(400, BODY, 1);
    assert_int_equal(answer.action, ANSWER_HALVE);
}

static void rejects_nothing_if_the_response_is_incomplete(void **state)
{
    struct post_response response = {.body = "", .failure = "reset"};
    (void)state;
    for (response.status = 200; response.status < 600; response.status++) {
        answer_read(&response, 1, NOW, &answer);
        assert_int_equal(answer.action, ANSWER_RETRY);
    }
    /* A server may close the connection after a 413. */
    response.status = 413;
    answer_read(&response, 2, NOW, &answer);
    assert_int_equal(answer.action, ANSWER_HALVE);
}

static void honours_retry_after(void **state)
{
    struct post_response response = {
        .status = 503, .is_complete = true, .body = "", .retry_after = "7"};
    (void)state;
    answer_read(&response, 1, NOW, &answer);
    assert_int_equal(answer.retry_ms, 7000);
    response.status = 429;
    answer_read(&response, 1, NOW, &answer);
    assert_int_equal(answer.retry_ms, 7000);
    /* It is ignored with other statuses. */
    response.status = 500;
    answer_read(&response, 1, NOW, &answer);
    assert_int_equal(answer.retry_ms, -1);
}

static void parses_seconds_and_dates(void **state)
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
    static const int64_t MAX[] = {1000,  2000,  4000,   8000,   16000,
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
        assert_true(lowest >= 0 && lowest < MAX[failures - 1] / 10);
        assert_true(highest <= MAX[failures - 1] && highest > MAX[failures - 1] / 10 * 9);
    }
    assert_true(answer_backoff(1000000000) <= 300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chooses_an_action_for_each_status),
        cmocka_unit_test(accepts_a_200_only_with_a_valid_body),
        cmocka_unit_test(reads_the_list_of_rejected_events),
        cmocka_unit_test(halves_the_batch_if_the_list_is_invalid),
        cmocka_unit_test(halves_a_batch_with_too_many_nodes),
        cmocka_unit_test(rejects_nothing_if_the_response_is_incomplete),
        cmocka_unit_test(honours_retry_after),
        cmocka_unit_test(parses_seconds_and_dates),
        cmocka_unit_test(backs_off_with_full_jitter),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
