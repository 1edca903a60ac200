#include "judge.h"

static void refuses_an_empty_batch(void **state)
{
    (void)state;
    assert_judged("[]", ERROR_EMPTY_BATCH);
    assert_judged(" [ \n] ", ERROR_EMPTY_BATCH);
}

static void accepts_a_thousand_events_and_no_more(void **state)
{
    char *body = calloc(1, 4 * 1002);
    (void)state;
    body[0] = '[';
    for (int i = 0; i < BATCH_EVENTS; i++)
        memcpy(body + 1 + i * 3, "{},", 3);
    body[3 * BATCH_EVENTS] = ']';
    assert_int_equal(batch_split(&batch, body, strlen(body)), ERROR_NONE);
    assert_int_equal(batch.count, BATCH_EVENTS);
    memcpy(body + 3 * BATCH_EVENTS, ",{}]", 4);
    assert_int_equal(batch_split(&batch, body, strlen(body)), ERROR_BATCH_TOO_LARGE);
    memcpy(body + 3 * BATCH_EVENTS, ",{}}", 4);
    assert_int_equal(batch_split(&batch, body, strlen(body)), ERROR_INVALID_REQUEST);
    free(body);
}

static void refuses_an_event_that_is_not_an_object(void **state)
{
    static const char *const EVENTS[] = {"null", "1", "-1.5e3", "\"x\"", "true", "[]", "[{}]"};
    (void)state;
    for (size_t i = 0; i < sizeof(EVENTS) / sizeof(EVENTS[0]); i++)
        assert_event(EVENTS[i], ERROR_INVALID_EVENT);
}

static void limits_the_depth_to_32(void **state)
{
    char event[400];
    char nested[200];
    (void)state;
    for (int levels = 30; levels <= 31; levels++) {
        /* The event and its payload are the first two levels. */
        snprintf(nested, sizeof(nested), "{\"v\":%.*s%.*s}", levels,
                 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", levels, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
        snprintf(event, sizeof(event), EVENT("evt_1", "%s"), nested);
        assert_event(event, levels == 30 ? ERROR_NONE : ERROR_INVALID_EVENT);
    }
}

static void survives_endless_nesting(void **state)
{
    size_t levels = 50000;
    char *body = malloc(2 * levels + 3);
    (void)state;
    memset(body, '[', levels + 1);
    memset(body + levels + 1, ']', levels + 1);
    assert_int_equal(judge(body, 2 * levels + 2), ERROR_INVALID_EVENT);
    assert_int_equal(judge(body, levels + 1), ERROR_INVALID_REQUEST);
    free(body);
}

static void limits_an_event_to_64_kib(void **state)
{
    static char event[BATCH_EVENT_BYTES + 2];
    static const char END[] = "\"}}";
    (void)state;
    for (size_t size = BATCH_EVENT_BYTES; size <= BATCH_EVENT_BYTES + 1; size++) {
        memset(event, 'x', size);
        memcpy(event, EVENT("evt_1", "{\"v\":\""), strlen(EVENT("evt_1", "{\"v\":\"")) - 1);
        memcpy(event + size - strlen(END), END, sizeof(END));
        assert_event(event, size == BATCH_EVENT_BYTES ? ERROR_NONE : ERROR_INVALID_EVENT);
    }
}

static void limits_a_batch_to_200000_objects_and_arrays(void **state)
{
    enum { EVENTS = 100, NODES = BATCH_NODES / EVENTS };
    char *body = malloc((size_t)EVENTS * NODES * 3 + 8);
    size_t at = 0;
    (void)state;
    /* Each event is an array of empty objects, and a node itself. */
    for (int event = 0; event < EVENTS; event++) {
        body[at++] = event == 0 ? '[' : ',';
        body[at++] = '[';
        for (int i = 1; i < NODES; i++) {
            memcpy(body + at, "{},", 3);
            at += 3;
        }
        body[at - 1] = ']';
    }
    memcpy(body + at, "]", 2);
    assert_int_equal(batch_split(&batch, body, at + 1), ERROR_NONE);
    memcpy(body + at, ",{}]", 5);
    assert_int_equal(batch_split(&batch, body, at + 4), ERROR_BATCH_TOO_LARGE);
    free(body);
}

static void lists_every_bad_event_in_order(void **state)
{
    (void)state;
    assert_judged("[" EVENT("evt_1", "{}") ",{}," EVENT("evt_2", "{}") "," EVENT("evt_3", "[]") "]",
                  ERROR_INVALID_EVENT_ID);
    assert_int_equal(batch.rejected_count, 2);
    assert_int_equal(batch.rejected[0].index, 1);
    assert_int_equal(batch.rejected[0].error, ERROR_INVALID_EVENT_ID);
    assert_int_equal(batch.rejected[1].index, 3);
    assert_int_equal(batch.rejected[1].error, ERROR_INVALID_PAYLOAD);
}

static void judges_an_event_without_regard_to_the_one_before(void **state)
{
    (void)state;
    assert_judged("[" EVENT("evt_1", "{\"\x01\":\"\\ud83d\\uZ\"}") "," EVENT(
                      "evt_2", "{}") ",{\"id\":\"\\u0065vt_3\"}]",
                  ERROR_INVALID_PAYLOAD);
    assert_int_equal(batch.rejected_count, 2);
    assert_int_equal(batch.rejected[1].index, 2);
    assert_int_equal(batch.rejected[1].error, ERROR_SOURCE_MISMATCH);
}

static void reads_an_escape_without_regard_to_the_one_before(void **state)
{
    /* json-c can keep half a surrogate pair for the next string. */
    static const char *const IDS[] = {
        "evt_\\ud83d",        "evt_\\ud83d\\n", "evt_\\ud83d\\ud83d", "evt_\\ude00",
        "evt_\\ud83d\\ude00", "evt_\\ud83dx",   "evt_\\ud836\\udc00", "\\ud83d",
    };
    char body[200];
    (void)state;
    for (size_t i = 0; i < sizeof(IDS) / sizeof(IDS[0]); i++) {
        snprintf(body, sizeof(body),
                 "[{\"id\":\"%s\"},{\"id\":\"\\u0065vt_1\"},{\"id\":\"\\ude00evt_1\"}]", IDS[i]);
        judge(body, strlen(body));
        assert_int_equal(batch.rejected_count, 3);
        assert_int_equal(batch.rejected[1].error, ERROR_SOURCE_MISMATCH);
        assert_int_equal(batch.rejected[2].error, ERROR_INVALID_EVENT_ID);
    }
}

static void says_first_that_a_body_is_not_json(void **state)
{
    (void)state;
    assert_judged("[{},{\"a\":}]", ERROR_INVALID_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_an_empty_batch),
        cmocka_unit_test(accepts_a_thousand_events_and_no_more),
        cmocka_unit_test(refuses_an_event_that_is_not_an_object),
        cmocka_unit_test(limits_the_depth_to_32),
        cmocka_unit_test(survives_endless_nesting),
        cmocka_unit_test(limits_an_event_to_64_kib),
        cmocka_unit_test(limits_a_batch_to_200000_objects_and_arrays),
        cmocka_unit_test(lists_every_bad_event_in_order),
        cmocka_unit_test(judges_an_event_without_regard_to_the_one_before),
        cmocka_unit_test(reads_an_escape_without_regard_to_the_one_before),
        cmocka_unit_test(says_first_that_a_body_is_not_json),
    };

    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
