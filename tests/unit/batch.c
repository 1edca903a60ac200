#include "batch.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An event that breaks no rule, but for the source's name: macbook. */
#define EVENT(id, payload)                                                                         \
    "{\"id\":\"" id "\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","            \
    "\"type\":\"tool\",\"payload\":" payload "}"

static struct batch batch;

/* Both judges, in the order in which ingest.fcgi asks them. The copy has just its NUL behind it. */
static enum error judge(const char *body, size_t length)
{
    char *copy = malloc(length + 1);
    enum error error;

    memcpy(copy, body, length);
    copy[length] = '\0';
    error = batch_split(&batch, copy, length);
    if (error == ERROR_NONE)
        error = batch_check(&batch, "macbook", 7);
    free(copy);
    return error;
}

static void assert_judged(const char *body, enum error expected)
{
    enum error error = judge(body, strlen(body));

    if (error != expected)
        fail_msg("%.200s: %d, expected %d", body, (int)error, (int)expected);
}

static void assert_event(const char *event, enum error expected)
{
    size_t size = strlen(event) + 3;
    char *body = malloc(size);

    snprintf(body, size, "[%s]", event);
    assert_judged(body, expected);
    free(body);
}

/* An event whose payload has one member, v, of this value. */
static void assert_value(const char *value, enum error expected)
{
    size_t size = strlen(value) + 200;
    char *event = malloc(size);

    snprintf(event, size, EVENT("evt_1", "{\"v\":%s}"), value);
    assert_event(event, expected);
    free(event);
}

static void takes_what_monitors_in_the_field_send(void **state)
{
    (void)state;
    assert_event("{\"id\":\"evt_k7m2n9p4q1r6s3t8u5v0\",\"source\":\"macbook\","
                 "\"timestamp\":\"2026-02-03T14:30:00.123456789Z\",\"type\":\"tool\","
                 "\"payload\":{\"sessionId\":\"550e8400-e29b-41d4-a716-446655440000\"}}",
                 ERROR_NONE);
}

static void refuses_a_body_that_is_no_array(void **state)
{
    static const char *const BODIES[] = {
        "",
        " ",
        "{}",
        "null",
        "1",
        "\"[]\"",
        "[",
        "[{}",
        "[{}]]",
        "[{}],",
        "[{},]",
        "[,{}]",
        "[,]",
        "[{}{}",
        "[}",
        "[{\"a\":\"b]",
        "[{\"a\":\"b\\\"]",
        "[{}]x",
        "\xef\xbb\xbf[{}]",
        "[\"\\",
        "[{}] {}",
        "[\xff]",
        "[{\"a\":\"\xc0\x80\"}]",
        "[{\"a\":\"\xed\xa0\x80\"}]",
        "[{}, {} {}]",
        "[{\"a\" 1}]",
        "[{\"a\":}]",
        "[{\"a\":1,}]",
        "[{a:1}]",
        "[{]}",
        "[[}]]",
        "[foo]",
        "[{\"a\":tru}]",
        "[{/**/}]",
        "[{\"a\":1}//\n]",
        "[{\"a\":'b'}]",
        "[1 2]",
        "[\"\\x\"]",
        "[\"\\u12\"]",
        "[.5]",

        "[1e]",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BODIES) / sizeof(BODIES[0]); i++)
        assert_judged(BODIES[i], ERROR_INVALID_REQUEST);
}

static void refuses_a_nul_outside_a_string(void **state)
{
    (void)state;
    assert_int_equal(judge("[{}]\0", 5), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[{\0}]", 5), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[1\0]", 4), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("\0[{}]", 5), ERROR_INVALID_REQUEST);
}

static void refuses_an_empty_batch(void **state)
{
    (void)state;
    assert_judged("[]", ERROR_EMPTY_BATCH);
    assert_judged(" [ \n] ", ERROR_EMPTY_BATCH);
}

static void takes_a_thousand_events_and_no_more(void **state)
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

static void refuses_what_is_no_object(void **state)
{
    static const char *const EVENTS[] = {"null", "1", "-1.5e3", "\"x\"", "true", "[]", "[{}]"};
    (void)state;
    for (size_t i = 0; i < sizeof(EVENTS) / sizeof(EVENTS[0]); i++)
        assert_event(EVENTS[i], ERROR_INVALID_EVENT);
}

static void bounds_the_depth_at_32(void **state)
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

static void survives_nesting_without_end(void **state)
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

static void bounds_an_event_at_64_kib(void **state)
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

static void bounds_a_batch_at_200000_objects_and_arrays(void **state)
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

static void checks_the_id(void **state)
{
    static const char *const BAD[] = {
        "{\"id\":1}",
        "{\"id\":null}",
        "{\"id\":\"\"}",
        "{\"id\":\"evt_\"}",
        "{\"id\":\"evt1\"}",
        "{\"id\":\" evt_1\"}",
        "{\"id\":\"EVT_1\"}",
        "{\"id\":\"evt_\\u0000\"}",
        "{\"id\":\"evt_\\n\"}",
        "{\"id\":\"evt_\\u007f\"}",
        "{\"id\":\"evt_\\u0085\"}",
        "{\"id\":\"evt_\t\"}",
        "{}",
        "{\"id\":[\"evt_1\"]}",
    };
    char event[600];
    char id[257];
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_event(BAD[i], ERROR_INVALID_EVENT_ID);
    memset(id, 'x', sizeof(id));
    snprintf(event, sizeof(event), EVENT("evt_%.251s", "{}"), id);
    assert_event(event, ERROR_NONE);
    snprintf(event, sizeof(event), EVENT("evt_%.252s", "{}"), id);
    assert_event(event, ERROR_INVALID_EVENT_ID);
}

static void checks_the_source_byte_for_byte(void **state)
{
    (void)state;
    assert_event("{\"id\":\"evt_1\"}", ERROR_SOURCE_MISMATCH);
    assert_event("{\"id\":\"evt_1\",\"source\":\"Macbook\"}", ERROR_SOURCE_MISMATCH);
    assert_event("{\"id\":\"evt_1\",\"source\":\"macboo\"}", ERROR_SOURCE_MISMATCH);
    assert_event("{\"id\":\"evt_1\",\"source\":\"macbook\\u0000\"}", ERROR_SOURCE_MISMATCH);
    assert_event("{\"id\":\"evt_1\",\"source\":7}", ERROR_SOURCE_MISMATCH);
    assert_event("{\"id\":\"evt_1\",\"source\":\"mac\\u0062ook\"}", ERROR_INVALID_TIMESTAMP);
}

static void checks_the_timestamp(void **state)
{
#define STAMPED(value) "{\"id\":\"evt_1\",\"source\":\"macbook\",\"timestamp\":" value "}"
    (void)state;
    assert_event(STAMPED("\"yesterday\""), ERROR_INVALID_TIMESTAMP);
    assert_event(STAMPED("1770129000"), ERROR_INVALID_TIMESTAMP);
    assert_event(STAMPED("\"2026-02-03T14:30:00Z\\u0000\""), ERROR_INVALID_TIMESTAMP);
    assert_event(STAMPED("\"2026-02-03T14:30:00Z\""), ERROR_INVALID_EVENT_TYPE);
}

static void checks_the_type(void **state)
{
#define TYPED(members)                                                                             \
    "{\"id\":\"evt_1\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","             \
    "\"payload\":{}," members "}"
    static const char *const GOOD[] = {
        TYPED("\"type\":\"session\""),
        TYPED("\"type\":\"activity\""),
        TYPED("\"type\":\"tool\""),
        TYPED("\"eventType\":\"agent\""),
        TYPED("\"eventType\":\"summary\""),
        TYPED("\"eventType\":\"error\""),
        TYPED("\"eventType\":\"error\",\"type\":\"nonsense\""),
    };
    static const char *const BAD[] = {
        TYPED("\"type\":\"Tool\""),
        TYPED("\"type\":\"too\""),
        TYPED("\"type\":\"tools\""),
        TYPED("\"type\":\"\""),
        TYPED("\"type\":null"),
        TYPED("\"type\":\"tool\\u0000\""),
        TYPED("\"other\":1"),
        TYPED("\"eventType\":null,\"type\":\"tool\""),
        TYPED("\"eventType\":\"nonsense\",\"type\":\"tool\""),
    };
    (void)state;
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_event(GOOD[i], ERROR_NONE);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_event(BAD[i], ERROR_INVALID_EVENT_TYPE);
}

static void checks_the_payload(void **state)
{
    static const char *const BAD[] = {
        EVENT("evt_1", "null"),           EVENT("evt_1", "[]"),
        EVENT("evt_1", "\"{}\""),         EVENT("evt_1", "1"),
        EVENT("evt_1", "{\"v\":\"\n\"}"), EVENT("evt_1", "{\"\x01\":1}"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_event(BAD[i], ERROR_INVALID_PAYLOAD);
    assert_event(EVENT("evt_1", "{}"), ERROR_NONE);
}

static void refuses_a_payload_of_lax_tokens(void **state)
{
    (void)state;
    assert_value("NaN", ERROR_INVALID_PAYLOAD);
    assert_value("\"\\ud800\"", ERROR_INVALID_PAYLOAD);
    assert_value("1e999", ERROR_INVALID_PAYLOAD);
    assert_value("0e-20000", ERROR_INVALID_PAYLOAD);
    assert_value("[1.5e300,true,\"\\ud83d\\ude00\"]", ERROR_NONE);
}

static void refuses_leading_zeros_and_bare_points(void **state)
{
    /* json-c takes some of them and not others: 422 or 400. */
    static const char *const BAD[] = {"01", "-01", "00", "1.", "-.5", "1.e5", "0x10", "1e+", "--1"};
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        char body[200];
        int length = snprintf(body, sizeof(body), "[" EVENT("evt_1", "{\"v\":%s}") "]", BAD[i]);
        enum error error = judge(body, (size_t)length);

        if (error != ERROR_INVALID_PAYLOAD && error != ERROR_INVALID_REQUEST)
            fail_msg("%s: %d", BAD[i], (int)error);
    }
}

static void refuses_a_raw_nul_in_a_payload(void **state)
{
    static const char BODY[] = "[" EVENT("evt_1", "{\"v\":\"a\0b\"}") "]";
    (void)state;
    assert_int_equal(judge(BODY, sizeof(BODY) - 1), ERROR_INVALID_PAYLOAD);
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

static void says_first_that_a_body_is_not_json(void **state)
{
    (void)state;
    assert_judged("[{},{\"a\":}]", ERROR_INVALID_REQUEST);
}

static void lets_the_last_of_equal_names_count(void **state)
{
    (void)state;
    /* As jsonb does: both judges must see the same event. */
    assert_event("{\"id\":\"bad\",\"id\":\"evt_1\",\"source\":\"macbook\","
                 "\"timestamp\":\"2026-02-03T14:30:00Z\",\"type\":\"tool\",\"payload\":{}}",
                 ERROR_NONE);
    assert_event("{\"id\":\"evt_1\",\"\\u0069d\":\"bad\"}", ERROR_INVALID_EVENT_ID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_monitors_in_the_field_send),
        cmocka_unit_test(refuses_a_body_that_is_no_array),
        cmocka_unit_test(refuses_a_nul_outside_a_string),
        cmocka_unit_test(refuses_an_empty_batch),
        cmocka_unit_test(takes_a_thousand_events_and_no_more),
        cmocka_unit_test(refuses_what_is_no_object),
        cmocka_unit_test(bounds_the_depth_at_32),
        cmocka_unit_test(survives_nesting_without_end),
        cmocka_unit_test(bounds_an_event_at_64_kib),
        cmocka_unit_test(bounds_a_batch_at_200000_objects_and_arrays),
        cmocka_unit_test(checks_the_id),
        cmocka_unit_test(checks_the_source_byte_for_byte),
        cmocka_unit_test(checks_the_timestamp),
        cmocka_unit_test(checks_the_type),
        cmocka_unit_test(checks_the_payload),
        cmocka_unit_test(refuses_a_payload_of_lax_tokens),
        cmocka_unit_test(refuses_leading_zeros_and_bare_points),
        cmocka_unit_test(refuses_a_raw_nul_in_a_payload),
        cmocka_unit_test(lists_every_bad_event_in_order),
        cmocka_unit_test(says_first_that_a_body_is_not_json),
        cmocka_unit_test(lets_the_last_of_equal_names_count),
    };

    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
