#include "judge.h"

#include <stdint.h>

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
        TYPED("\"type\":\"nonsense\",\"eventType\":\"error\""),
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

static void refuses_a_payload_that_jsonb_does_not_store(void **state)
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
    static const char *const LAX[] = {"01", "-01", "00", "1.", "-.5", "1.e5"};
    static const char *const BROKEN[] = {"0x10", "1e+", "--1", ".5", "+1"};
    (void)state;
    for (size_t i = 0; i < sizeof(LAX) / sizeof(LAX[0]); i++)
        assert_value(LAX[i], ERROR_INVALID_PAYLOAD);
    for (size_t i = 0; i < sizeof(BROKEN) / sizeof(BROKEN[0]); i++)
        assert_value(BROKEN[i], ERROR_INVALID_REQUEST);
}

static void refuses_a_raw_nul_in_a_string(void **state)
{
    static const char PAYLOAD[] = "[" EVENT("evt_1", "{\"v\":\"a\0b\"}") "]";
    static const char ID[] = "[" EVENT("\\u0065vt_\0", "{}") "]";
    (void)state;
    assert_int_equal(judge(PAYLOAD, sizeof(PAYLOAD) - 1), ERROR_INVALID_PAYLOAD);
    assert_int_equal(judge(ID, sizeof(ID) - 1), ERROR_INVALID_PAYLOAD);
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

/* Marsaglia's xorshift: the same numbers in every run. */
static uint32_t draw(uint32_t below)
{
    static uint32_t state = 2463534242;

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

/* Changes a text behind its first byte: a few bytes replaced, taken out or written twice. */
static size_t mutate(char *text, size_t length)
{
    static const char BYTES[] = "{}[]\":,\\ \n\t\x01\x7f"
                                "01e+-.untfalseidpayload\xc3\xa9";

    for (uint32_t changes = draw(4); changes > 0; changes--) {
        size_t at = 1 + draw((uint32_t)length - 1);
        size_t left = length - at;
        size_t run = left < 12 ? left : 1 + draw(12);

        switch (draw(3)) {
        case 0:
            text[at] = BYTES[draw(sizeof(BYTES) - 1)];
            break;
        case 1:
            memmove(text + at, text + at + run, left - run);
            length -= run;
            break;
        default:
            memmove(text + at + run, text + at, left);
            length += run;
        }
    }
    return length;
}

static void judges_alike_what_is_plain_escaped_and_parsed(void **state)
{
    static const char *const SEEDS[] = {
        EVENT("evt_1", "{}"),
        EVENT("evt_1", "{\"v\":[1,-2.5e3,true,null,{\"a\":\"b\\n\\u00e9\"}],\"w\":{},\"x\":\"y\"}"),
        "{ \"payload\" : { } , \"type\":\"agent\", \"eventType\":\"tool\",\n\"x\":[[]],"
        "\"timestamp\":\"2026-02-03T14:30:00.5+01:00\",\"source\":\"macbook\","
        "\"id\":\"evt_\xc3\xa9\"}",
        "{\"id\":\"evt_1\",\"id\":\"evt_2\",\"source\":\"m\\u0061cbook\",\"s\":\"\\\\\","
        "\"timestamp\":\"2026-02-03T14:30:00Z\",\"type\":\"tool\",\"payload\":{\"\":\"\"}}",
    };
    char text[1024];
    size_t stored = 0;
    (void)state;
    for (int round = 0; round < 100000; round++) {
        const char *seed = SEEDS[draw(sizeof(SEEDS) / sizeof(SEEDS[0]))];
        size_t length = strlen(seed);

        memcpy(text, seed, length + 1);
        length = mutate(text, length);
        stored += judge_each_way(text, length) == ERROR_NONE;
    }
    assert_in_range(stored, 20000, 80000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_monitors_in_the_field_send),
        cmocka_unit_test(checks_the_id),
        cmocka_unit_test(checks_the_source_byte_for_byte),
        cmocka_unit_test(checks_the_timestamp),
        cmocka_unit_test(checks_the_type),
        cmocka_unit_test(checks_the_payload),
        cmocka_unit_test(refuses_a_payload_that_jsonb_does_not_store),
        cmocka_unit_test(refuses_leading_zeros_and_bare_points),
        cmocka_unit_test(refuses_a_raw_nul_in_a_string),
        cmocka_unit_test(lets_the_last_of_equal_names_count),
        cmocka_unit_test(judges_alike_what_is_plain_escaped_and_parsed),
    };

    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
