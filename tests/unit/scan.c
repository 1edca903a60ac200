#include "event/scan.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Scans an array of one event, which must be all of it. */
static struct scan_event only_event(const char *event)
{
    static char body[40000];
    struct scan scan;
    struct scan_event found, none;
    int length = snprintf(body, sizeof(body), "[%s]", event);

    assert_true(length > 0 && (size_t)length < sizeof(body));
    scan_begin(&scan, body, (size_t)length);
    if (scan_next(&scan, &found) != SCAN_EVENT)
        fail_msg("no event: %.200s", event);
    assert_int_equal(scan_next(&scan, &none), SCAN_END);
    return found;
}

static void assert_json(const char *event, bool expected)
{
    if (only_event(event).is_json != expected)
        fail_msg("%.200s: %s", event, expected ? "not JSON" : "JSON");
}

static void assert_storable(const char *event, bool expected)
{
    assert_json(event, true);
    if (only_event(event).is_storable != expected)
        fail_msg("%.200s: %s", event, expected ? "not storable" : "storable");
}

static void assert_broken(const char *body)
{
    struct scan scan;
    struct scan_event event;
    enum scan_step step;

    scan_begin(&scan, body, strlen(body));
    do
        step = scan_next(&scan, &event);
    while (step == SCAN_EVENT);
    if (step != SCAN_BROKEN)
        fail_msg("not broken: %s", body);
}

static void finds_the_bytes_of_each_event(void **state)
{
    static const char BODY[] = " [ {\"a\":\"],[\\\"\"} ,\n[1, 2],3 ]\r\n";
    static const char *const EXPECTED[] = {"{\"a\":\"],[\\\"\"}", "[1, 2]", "3"};
    struct scan scan;
    struct scan_event event;
    (void)state;
    scan_begin(&scan, BODY, strlen(BODY));
    for (size_t i = 0; i < sizeof(EXPECTED) / sizeof(EXPECTED[0]); i++) {
        assert_int_equal(scan_next(&scan, &event), SCAN_EVENT);
        assert_int_equal(event.length, strlen(EXPECTED[i]));
        assert_memory_equal(event.text, EXPECTED[i], event.length);
    }
    assert_int_equal(scan_next(&scan, &event), SCAN_END);
}

static void ends_at_once_in_an_empty_array(void **state)
{
    struct scan scan;
    struct scan_event event;
    (void)state;
    scan_begin(&scan, " [ \n] ", strlen(" [ \n] "));
    assert_int_equal(scan_next(&scan, &event), SCAN_END);
}

static void reports_a_broken_array(void **state)
{
    static const char *const BODIES[] = {
        "",      "{}",  "1",  "[",    "[{}",          "[{}]]", "[{},]",
        "[,{}]", "[,]", "[}", "[}{]", "[{\"a\":\"b]", "[\"\\", "[{}]x",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BODIES) / sizeof(BODIES[0]); i++)
        assert_broken(BODIES[i]);
}

static void assert_member(const struct scan_event *event, enum scan_member member,
                          const char *expected)
{
    const struct event_text *value = &event->members[member];

    assert_int_equal(value->length, strlen(expected));
    assert_memory_equal(value->text, expected, value->length);
}

static void finds_the_members_where_they_stand(void **state)
{
    struct scan_event event = only_event(
        " { \"payload\" : {\"id\":[{},[],\"}\\\"\",-1.5,null],\"b\":2} , \"source\":\"a]\",\n"
        "\"other\":{\"type\":1},\"timestamp\":\"\",\"type\":\"tool\",\"id\":\"evt_1\"}");
    (void)state;
    assert_true(event.is_json && event.is_storable);
    assert_member(&event, SCAN_ID, "\"evt_1\"");
    assert_member(&event, SCAN_SOURCE, "\"a]\"");
    assert_member(&event, SCAN_TIMESTAMP, "\"\"");
    assert_member(&event, SCAN_TYPE, "\"tool\"");
    assert_member(&event, SCAN_PAYLOAD, "{\"id\":[{},[],\"}\\\"\",-1.5,null],\"b\":2}");
    assert_null(event.members[SCAN_EVENT_TYPE].text);
    event = only_event("{\"type\":\"tool\",\"eventType\":\"agent\"}");
    assert_member(&event, SCAN_TYPE, "\"tool\"");
    assert_member(&event, SCAN_EVENT_TYPE, "\"agent\"");
}

static void leaves_a_value_as_it_is_written(void **state)
{
    static const struct {
        const char *event;
        enum scan_member member;
        const char *value;
    } CASES[] = {
        {"{\"id\":1}", SCAN_ID, "1"},
        {"{\"id\":null}", SCAN_ID, "null"},
        {"{\"payload\":[]}", SCAN_PAYLOAD, "[]"},
        {"{\"payload\":1}", SCAN_PAYLOAD, "1"},
        {"{\"eventType\":null,\"type\":\"tool\"}", SCAN_EVENT_TYPE, "null"},
        {"{\"source\":\"\\u0061\"}", SCAN_SOURCE, "\"\\u0061\""},
        {"{\"source\":\"\\\"\"}", SCAN_SOURCE, "\"\\\"\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct scan_event event = only_event(CASES[i].event);

        assert_true(event.is_json);
        assert_member(&event, CASES[i].member, CASES[i].value);
    }
}

static void lets_the_last_of_equal_names_count(void **state)
{
    struct scan_event event = only_event("{\"id\":\"a\",\"id\":\"b\"}");
    (void)state;
    assert_member(&event, SCAN_ID, "\"b\"");
    event = only_event("{\"payload\":{},\"payload\":[{}]}");
    assert_member(&event, SCAN_PAYLOAD, "[{}]");
    event = only_event("{\"id\":\"a\",\"\\u0069d\":1}");
    assert_member(&event, SCAN_ID, "1");
}

static void reads_names_with_escapes(void **state)
{
    struct scan_event event =
        only_event("{\"\\u0069d\":1,\"\\u0073\\u006f\\u0075\\u0072\\u0063\\u0065\":2,"
                   "\"t\\u0079pe\":3,\"payloa\\u0064\":4,\"event\\u0054ype\":5}");
    (void)state;
    assert_member(&event, SCAN_ID, "1");
    assert_member(&event, SCAN_SOURCE, "2");
    assert_member(&event, SCAN_TYPE, "3");
    assert_member(&event, SCAN_PAYLOAD, "4");
    assert_member(&event, SCAN_EVENT_TYPE, "5");
}

static void finds_no_member_of_another_name(void **state)
{
    static const char *const EVENTS[] = {
        "{}",
        "[]",
        "1",
        "\"{}\"",
        "\"id\"",
        "[\"id\",1]",
        "[{\"id\":1}]",
        "{\"x\":{\"id\":1}}",
        "{\"ID\":\"evt_1\",\"idx\":\"\",\"i\":1}",
        "{\"id\\u0000\":1,\"id\\u0000x\":1,\"\\u0000id\":1}",
        "{\"id\\\"\":1,\"i\\d\":1,\"\\u0049d\":1,\"\\u0169d\":1}",
        "{\"x\":\"id\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(EVENTS) / sizeof(EVENTS[0]); i++) {
        struct scan_event event = only_event(EVENTS[i]);

        for (size_t member = 0; member < SCAN_MEMBERS; member++)
            assert_null(event.members[member].text);
    }
}

static void judges_what_is_json(void **state)
{
    static const char *const BAD[] = {
        "{\"x\" 1}",
        "{\"x\":}",
        "{\"x\":1,}",
        "{,\"x\":1}",
        "{\"x\":1 \"y\":2}",
        "{\"x\":1 2}",
        "{\"x\":[1,]}",
        "{\"x\":[,1]}",
        "{\"x\":[1 2]}",
        "{\"x\":[\"a\":1]}",
        "{\"x\":{1}}",
        "{\"x\":{\"a\"}}",
        "{\"x\":{\"a\":1,}}",
        "{\"x\":{\"a\":1,\"b\"}}",
        "{\"x\":{\"a\":1,2}}",
        "{\"x\":[1}]",
        "{x:1}",
        "{\"x\":1} 2",
        "{\"x\"::1}",
        "{\"x\":1:2}",
        "{1:2}",
        "{[]:1}",
        "{'x':1}",
        "[}",
        "{]",
        "[1,,2]",
        "{} {}",
        ":",
        "1 2",
        "\"a\" \"b\"",
        "tru",
        "truefalse",
        "True",
        "nan",
        "-infinity",
        "+1",
        ".5",
        "-",
        "-.",
        "1e",
        "1e+",
        "1e+-5",
        "1.2.3",
        "1e5.5",
        "0x10",
        "--1",
        "1-2",
        "/**/1",
        "\v1",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\U0041\"",
        "\"\\\n\"",
        "\"\\ud83d\\u\"",
        "\xc3\xa9",
    };
    static const char *const GOOD[] = {
        "{}", "[]", "\"{}\"", "[[],{},[{}]]", " {\t\"\"\r:\n[ 1 , 2 ] , \"\" : { } } ", "-0.5E+10",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_json(BAD[i], false);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_storable(GOOD[i], true);
}

static void judges_up_to_64_levels(void **state)
{
    static const char OPEN[] = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[";
    static const char CLOSE[] = "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";
    char event[200];
    (void)state;
    for (int levels = 1; levels < 64; levels++) {
        snprintf(event, sizeof(event), "{\"x\":%.*s%.*s}", levels, OPEN, levels, CLOSE);
        assert_int_equal(only_event(event).depth, levels + 1);
        assert_json(event, true);
        event[strlen(event) - 1] = ']';
        assert_json(event, false);
    }
}

static void looks_at_every_byte_of_a_string(void **state)
{
    (void)state;
    for (size_t at = 1; at <= 30; at++) {
        char event[] = "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"";

        event[at] = '\x7f';
        assert_storable(event, true);
        event[at] = '\x1f';
        assert_storable(event, false);
        assert_true(only_event(event).has_control);
        event[at] = '\\';
        if (at < 30)
            assert_json(event, false);
        event[at] = '"';
        event[at + 1] = '\0';
        assert_int_equal(only_event(event).length, at + 1);
    }
}

static void counts_levels_and_nodes(void **state)
{
    struct scan_event event = only_event("{\"a\":[{},[[]]],\"b\":\"[[[\"}");
    (void)state;
    assert_int_equal(event.depth, 4);
    assert_int_equal(event.nodes, 5);
    assert_int_equal(only_event("7").depth, 0);
    assert_int_equal(only_event("7").nodes, 0);
}

static void finds_raw_control_characters_in_strings(void **state)
{
    (void)state;
    assert_true(only_event("{\"a\":\"\n\"}").has_control);
    assert_false(only_event("{\"a\":\n\"\"}").has_control);
}

static void judges_what_jsonb_stores(void **state)
{
    static const char *const BAD[] = {
        "NaN",
        "Infinity",
        "-Infinity",
        "[1,NaN]",
        "01",
        "-01",
        "00",
        "1.",
        "-.5",
        "1.e5",
        "\"\n\"",
        "{\"x\":NaN}",
        "{\"x\":\"\\ud800\"}",
        "{\"x\":\"\n\"}",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\\udbff\"",
        "\"\\udfff\"",
        "\"\\ud800\\udbff\"",
        "\"\\ud800\\ue000\"",
        "{\"\\u0000\":1}",
        "{\"\\udead\":1}",
    };
    static const char *const GOOD[] = {
        "\"\\ud83d\\ude00\"", "\"\\u00e9\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\\\u0000\"",      "\"\\\\ud800\"",
        "\"\\uD83D\\uDE00\"", "\"\\ud800\\udc00\\udbff\\udfff\\ud7ff\\ue000\"",
        "[true,false,null]",  "\"NaN\"",
        "\"\x7f\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_storable(BAD[i], false);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_storable(GOOD[i], true);
}

static void judges_which_numbers_a_double_holds(void **state)
{
    static const char *const BAD[] = {
        "1e999",    "-1e999",   "1e309",       "1e-400",    "-1E-999",
        "1e999999", "1e-20000", "[1,2,1e400]", "0.1e-1000", "123456789e310",
    };
    static const char *const GOOD[] = {
        "0",
        "-0",
        "1e308",
        "1e-308",
        "5e-324",
        "0e999",
        "-0.0e-999",
        "0.000e+999999",
        "1.7976931348623157e308",
        "12345678901234567890123456789012345678901234567890",
        "\"1e999\"",
        "3.14159265358979323846264338327950288",
    };
    char digits[402] = "";
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_storable(BAD[i], false);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_storable(GOOD[i], true);
    memset(digits, '9', 400);
    assert_storable(digits, false);
    digits[308] = '\0';
    assert_storable(digits, true);
    memcpy(digits, "0.", 2);
    memset(digits + 2, '0', 399);
    assert_storable(digits, true);
    digits[400] = '1';
    assert_storable(digits, false);
}

static void judges_which_numbers_postgresql_stores(void **state)
{
    static const char *const BAD[] = {"0e-20000", "0.0e-16383", "0e99999999999", "0e2000000000",
                                      "0e-99999999999"};
    static const char *const GOOD[] = {"0e-16383", "0e999999", "0e999999999", "1.5e-300"};
    char digits[16500] = "0.";
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_storable(BAD[i], false);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_storable(GOOD[i], true);
    memset(digits + 2, '1', 16383);
    assert_storable(digits, true);
    digits[2 + 16383] = '1';
    assert_storable(digits, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_bytes_of_each_event),
        cmocka_unit_test(ends_at_once_in_an_empty_array),
        cmocka_unit_test(reports_a_broken_array),
        cmocka_unit_test(finds_the_members_where_they_stand),
        cmocka_unit_test(leaves_a_value_as_it_is_written),
        cmocka_unit_test(lets_the_last_of_equal_names_count),
        cmocka_unit_test(reads_names_with_escapes),
        cmocka_unit_test(finds_no_member_of_another_name),
        cmocka_unit_test(judges_what_is_json),
        cmocka_unit_test(judges_up_to_64_levels),
        cmocka_unit_test(looks_at_every_byte_of_a_string),
        cmocka_unit_test(counts_levels_and_nodes),
        cmocka_unit_test(finds_raw_control_characters_in_strings),
        cmocka_unit_test(judges_what_jsonb_stores),
        cmocka_unit_test(judges_which_numbers_a_double_holds),
        cmocka_unit_test(judges_which_numbers_postgresql_stores),
    };

    return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
