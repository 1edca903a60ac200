#include "judge.h"

#include <stdint.h>

/* Checks an event with each of a list of values in place of its @. */
static void assert_each(const char *event, const char *values, enum error expected)
{
    size_t before = strcspn(event, "@");
    char value[LISTED_BYTES];

    while (next_listed(&values, value)) {
        char text[1024];

        snprintf(text, sizeof(text), "%.*s%s%s", (int)before, event, value, event + before + 1);
        assert_event(text, expected);
    }
}

static void accepts_what_monitors_in_the_field_send(void **state)
{
    (void)state;
    assert_event("{\"id\":\"evt_k7m2n9p4q1r6s3t8u5v0\",\"source\":\"macbook\","
                 "\"timestamp\":\"2026-02-03T14:30:00.123456789Z\",\"type\":\"tool\","
                 "\"payload\":{\"sessionId\":\"550e8400-e29b-41d4-a716-446655440000\"}}",
                 ERROR_NONE);
}

/* Checks an event whose id is the prefix and a letter that many times. */
static void assert_long_id(const char *letter, size_t count, enum error expected)
{
    char id[6000] = "";
    char event[6200];

    for (char *end = id; count > 0; count--)
        end = stpcpy(end, letter);
    snprintf(event, sizeof(event), EVENT("evt_%s", "{}"), id);
    assert_event(event, expected);
}

static void checks_the_id(void **state)
{
    (void)state;
    assert_event("{}", ERROR_INVALID_EVENT_ID);
    assert_each("{\"id\":@}", "null|1|true|[\"evt_1\"]|{\"evt_\":1}", ERROR_INVALID_EVENT_ID);
    assert_each(
        "{\"id\":\"@\"}",
        "|evt_|evt|evt1|EVT_1| evt_1|event_1|xevt_1|evt_\\u0000|evt_1\\u0000|evt_\\n|evt_1\n|"
        "evt_\t|evt_\\t|evt_\\u001f|evt_\\u007f|evt_\x7f|evt_\\u0085|evt_\xc2\x85",
        ERROR_INVALID_EVENT_ID);
    assert_each(EVENT("@", "{}"),
                "evt_1|evt_evt_|evt_ |evt_-._~/%00\\\\\\\"'|evt_\u65e5\u672c|evt_\U0001f600|"
                "\\u0065vt_1|e\\u0076\\u0074_1|\\u0065vt_\u65e5\u672c|evt_\u00e9\\u00e9",
                ERROR_NONE);
    assert_long_id("x", 251, ERROR_NONE);
    assert_long_id("x", 252, ERROR_INVALID_EVENT_ID);
    assert_long_id("x", 5000, ERROR_INVALID_EVENT_ID);
    assert_long_id("\u00e9", 125, ERROR_NONE);
    assert_long_id("\u00e9", 126, ERROR_INVALID_EVENT_ID);
}

static void checks_the_source_byte_for_byte(void **state)
{
    (void)state;
    assert_event("{\"id\":\"evt_1\"}", ERROR_SOURCE_MISMATCH);
    assert_each("{\"id\":\"evt_1\",\"source\":@}", "null|1|[\"macbook\"]", ERROR_SOURCE_MISMATCH);
    assert_each("{\"id\":\"evt_1\",\"source\":\"@\"}",
                "|MACBOOK|Macbook|macbook | macbook|macboo|macbook2|other|macbook\\u0000",
                ERROR_SOURCE_MISMATCH);
    assert_each("{\"id\":\"evt_1\",\"source\":\"@\"}",
                "macbook|mac\\u0062ook|\\u006d\\u0061\\u0063\\u0062\\u006f\\u006f\\u006b",
                ERROR_INVALID_TIMESTAMP);
}

static void checks_the_timestamp(void **state)
{
#define STAMPED(value) "{\"id\":\"evt_1\",\"source\":\"macbook\"" value "}"
    (void)state;
    assert_event(STAMPED(""), ERROR_INVALID_TIMESTAMP);
    assert_each(STAMPED(",\"timestamp\":@"),
                "null|1|1770129000|[]|{}|true|\"\"|\"x\"|\"yesterday\"|"
                "\"2026-02-03T14:30:00Z\\u0000\"|\"2026-02-03T14:30:00Z\\n\"",
                ERROR_INVALID_TIMESTAMP);
    assert_each(STAMPED(",\"timestamp\":@"),
                "\"2026-02-03T14:30:00Z\"|\"2026-02-03\\u005414:30:00Z\"",
                ERROR_INVALID_EVENT_TYPE);
}

static void checks_the_type(void **state)
{
#define TYPED(members)                                                                             \
    "{\"id\":\"evt_1\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","             \
    "\"payload\":{}" members "}"
    static const char GOOD[] =
        "\"session\"|\"activity\"|\"tool\"|\"agent\"|\"summary\"|\"error\"|\"t\\u006fol\"";
    static const char BAD[] =
        "null|1|true|[\"tool\"]|{\"tool\":1}|\"\"|\"Tool\"|\"too\"|\"tools\"|\"tool \"|"
        "\"tool\\u0000\"|\"nonsense\"";
    (void)state;
    assert_event(TYPED(""), ERROR_INVALID_EVENT_TYPE);
    assert_event(TYPED(",\"other\":1"), ERROR_INVALID_EVENT_TYPE);
    assert_each(TYPED(",\"type\":@"), GOOD, ERROR_NONE);
    assert_each(TYPED(",\"type\":@"), BAD, ERROR_INVALID_EVENT_TYPE);
    assert_each(TYPED(",\"eventType\":@"), GOOD, ERROR_NONE);
    assert_each(TYPED(",\"eventType\":@"), BAD, ERROR_INVALID_EVENT_TYPE);
    /* With both, eventType counts. */
    assert_each(TYPED(",\"eventType\":\"error\",\"type\":@"), "null|1|\"\"|\"nonsense\"",
                ERROR_NONE);
    assert_event(TYPED(",\"type\":\"nonsense\",\"eventType\":\"error\""), ERROR_NONE);
    assert_each(TYPED(",\"type\":\"tool\",\"eventType\":@"), BAD, ERROR_INVALID_EVENT_TYPE);
}

static void checks_the_payload(void **state)
{
    (void)state;
    assert_event("{\"id\":\"evt_1\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","
                 "\"type\":\"tool\"}",
                 ERROR_INVALID_PAYLOAD);
    assert_each(EVENT("evt_1", "@"), "null|1|true|false|\"\"|\"{}\"|\"x\"|[]|[{}]",
                ERROR_INVALID_PAYLOAD);
    assert_event(EVENT("evt_1", "{}"), ERROR_NONE);
}

/* jsonb stores the last, so the last is checked. */
static void checks_the_last_of_equal_names(void **state)
{
    static const struct {
        const char *name;
        const char *good;
        const char *bad;
        enum error error;
    } MEMBERS[] = {
        {"\"id\"", "\"evt_1\"", "\"forged\"", ERROR_INVALID_EVENT_ID},
        {"\"\\u0069d\"", "\"evt_1\"", "\"forged\"", ERROR_INVALID_EVENT_ID},
        {"\"source\"", "\"macbook\"", "\"other\"", ERROR_SOURCE_MISMATCH},
        {"\"sourc\\u0065\"", "\"macbook\"", "\"other\"", ERROR_SOURCE_MISMATCH},
        {"\"timestamp\"", "\"2026-02-03T14:30:00Z\"", "\"now\"", ERROR_INVALID_TIMESTAMP},
        {"\"timestam\\u0070\"", "\"2026-02-03T14:30:00Z\"", "\"now\"", ERROR_INVALID_TIMESTAMP},
        {"\"type\"", "\"tool\"", "\"x\"", ERROR_INVALID_EVENT_TYPE},
        {"\"\\u0074ype\"", "\"tool\"", "\"x\"", ERROR_INVALID_EVENT_TYPE},
        {"\"eventType\"", "\"tool\"", "\"x\"", ERROR_INVALID_EVENT_TYPE},
        {"\"\\u0065ventType\"", "\"tool\"", "\"x\"", ERROR_INVALID_EVENT_TYPE},
        {"\"payload\"", "{}", "[1]", ERROR_INVALID_PAYLOAD},
        {"\"\\u0070ayload\"", "{}", "[1]", ERROR_INVALID_PAYLOAD},
    };
    char event[300];
    (void)state;
    for (size_t i = 0; i < sizeof(MEMBERS) / sizeof(MEMBERS[0]); i++) {
        snprintf(event, sizeof(event), EVENT("evt_1", "{},%s:%s"), MEMBERS[i].name, MEMBERS[i].bad);
        assert_event(event, MEMBERS[i].error);
        snprintf(event, sizeof(event), EVENT("evt_1", "{},%s:%s,%s:%s"), MEMBERS[i].name,
                 MEMBERS[i].bad, MEMBERS[i].name, MEMBERS[i].good);
        assert_event(event, ERROR_NONE);
    }
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

/* Changes a text after its first byte: replaces, removes or repeats a few bytes. */
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

static void escaping_and_parsing_do_not_change_the_verdict(void **state)
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
        cmocka_unit_test(accepts_what_monitors_in_the_field_send),
        cmocka_unit_test(checks_the_id),
        cmocka_unit_test(checks_the_source_byte_for_byte),
        cmocka_unit_test(checks_the_timestamp),
        cmocka_unit_test(checks_the_type),
        cmocka_unit_test(checks_the_payload),
        cmocka_unit_test(checks_the_last_of_equal_names),
        cmocka_unit_test(escaping_and_parsing_do_not_change_the_verdict),
    };

    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
