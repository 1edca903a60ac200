#include "monitor/complete.h"
#include "event/rfc3339.h"
#include "unit.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct completer *completer;
static const char *text;
static size_t text_length;

static int make(void **state)
{
    (void)state;
    completer = completer_new("lap \"1\"");
    return completer == NULL;
}

static int unmake(void **state)
{
    (void)state;
    free(completer);
    return 0;
}

static enum error complete(const char *line)
{
    return complete_event(completer, line, strlen(line), &text, &text_length);
}

static void assert_same(const char *line, const char *expected)
{
    assert_int_equal(complete(line), ERROR_NONE);
    assert_int_equal(text_length, strlen(expected));
    assert_memory_equal(text, expected, text_length);
}

/* A member of the completed event, read by json-c; valid until the next call. */
static const char *member(const char *name)
{
    static char value[256];
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *object = json_tokener_parse_ex(tokener, text, (int)text_length);
    struct json_object *found = NULL;

    assert_true(json_object_object_get_ex(object, name, &found));
    strncpy(value, json_object_get_string(found), sizeof(value) - 1);
    json_object_put(object);
    json_tokener_free(tokener);
    return value;
}

static void keeps_a_complete_event_unchanged(void **state)
{
    static const char EVENT[] =
        "{\"id\":\"evt_1\",\"source\":\"lap \\\"1\\\"\",\"timestamp\":\"2026-02-03T14:35:00Z\", "
        "\"type\":\"tool\",\"payload\":{\"n\":1e3}, \"more\":null}";
    char line[512];
    (void)state;
    assert_same(EVENT, EVENT);
    snprintf(line, sizeof(line), " \t%s  ", EVENT);
    assert_same(line, EVENT);
}

static void assert_filled(const char *line, const char *rest)
{
    int64_t ignored;

    assert_int_equal(complete(line), ERROR_NONE);
    assert_memory_equal(text + text_length - strlen(rest), rest, strlen(rest));
    assert_int_equal(strlen(member("id")), COMPLETE_ID_BYTES);
    assert_memory_equal(member("id"), "evt_", 4);
    assert_int_equal(strspn(member("id") + 4, "abcdefghijklmnopqrstuvwxyz0123456789"), 20);
    assert_string_equal(member("source"), "lap \"1\"");
    assert_true(rfc3339_parse(member("timestamp"), strlen(member("timestamp")), &ignored));
}

static void fills_in_missing_members(void **state)
{
    (void)state;
    assert_filled("{\"type\":\"tool\",\"payload\":{}}", ",\"type\":\"tool\",\"payload\":{}}");
    /* An event with an escape in a value is read by json-c. */
    assert_filled("{ \"type\":\"\\u0074ool\",\"payload\":{}}",
                  ",\"type\":\"\\u0074ool\",\"payload\":{}}");
    assert_int_equal(complete("{\"\\u0069d\":\"evt_7\",\"type\":\"tool\",\"payload\":{}}"),
                     ERROR_NONE);
    assert_string_equal(member("id"), "evt_7");
    assert_int_equal(complete("{\"payload\":{\"id\":\"evt_7\"},\"type\":\"tool\"}"), ERROR_NONE);
    assert_string_not_equal(member("id"), "evt_7");
}

static void never_repeats_an_id(void **state)
{
    static char ids[2000][COMPLETE_ID_BYTES];
    (void)state;
    for (size_t i = 0; i < 2000; i++) {
        assert_int_equal(complete("{\"type\":\"tool\",\"payload\":{}}"), ERROR_NONE);
        memcpy(ids[i], text + strlen("{\"id\":\""), COMPLETE_ID_BYTES);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(ids[i], ids[j], COMPLETE_ID_BYTES);
    }
}

static void validates_events_as_the_server_does(void **state)
{
    (void)state;
    assert_int_equal(complete("{\"id\":null,\"type\":\"tool\",\"payload\":{}}"),
                     ERROR_INVALID_EVENT_ID);
    assert_int_equal(complete("{\"id\":\"x\",\"type\":\"tool\",\"payload\":{}}"),
                     ERROR_INVALID_EVENT_ID);
    assert_int_equal(complete("{\"source\":\"other\",\"type\":\"tool\",\"payload\":{}}"),
                     ERROR_SOURCE_MISMATCH);
    assert_int_equal(complete("{\"timestamp\":\"now\",\"type\":\"tool\",\"payload\":{}}"),
                     ERROR_INVALID_TIMESTAMP);
    assert_int_equal(complete("{\"payload\":{}}"), ERROR_INVALID_EVENT_TYPE);
    assert_int_equal(complete("{\"type\":\"tool\"}"), ERROR_INVALID_PAYLOAD);
    assert_int_equal(complete("{\"type\":\"tool\",\"payload\":{\"n\":1e999}}"),
                     ERROR_INVALID_PAYLOAD);
    assert_int_equal(complete("{\"type\":\"tool\",\"payload\":{\"n\":NaN}}"),
                     ERROR_INVALID_PAYLOAD);
    assert_int_equal(complete("{}"), ERROR_INVALID_EVENT_TYPE);
}

static void accepts_one_object_per_line(void **state)
{
    static const char *const LINES[] = {
        "x",
        "{",
        "}",
        "null",
        "7",
        "[]",
        "[{\"type\":\"tool\",\"payload\":{}}]",
        "{\"type\":\"tool\",\"payload\":{}},{\"type\":\"tool\",\"payload\":{}}",
        "{\"type\":\"tool\",\"payload\":{}}]",
        "{\"type\":\"tool\",\"payload\":{}}],[{\"type\":\"tool\",\"payload\":{}}",
        "{\"type\":\"tool\",\"payload\":{}} {}",
        "{\"type\":\"tool\",\"payload\":{}",
        "{\"type\":\"tool\" \"payload\":{}}",
        "{\"type\":\"tool\",\"payload\":{\"\xff\":1}}",
        "",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(LINES) / sizeof(LINES[0]); i++)
        assert_int_not_equal(complete(LINES[i]), ERROR_NONE);
    assert_int_equal(complete("x"), ERROR_INVALID_REQUEST);
    assert_string_equal(complete_error_code(ERROR_INVALID_REQUEST), "invalid_json");
    assert_int_equal(
        complete_event(completer, "{\"type\":\"tool\",\"payload\":{}\0}", 30, &text, &text_length),
        ERROR_INVALID_REQUEST);
}

/* Completes an event that has this length afterwards. */
static enum error complete_long(size_t length)
{
    static const char BEGIN[] = "{\"type\":\"tool\",\"payload\":{\"a\":\"";
    static const char END[] = "\"}}";
    static char line[COMPLETE_LINE_BYTES];
    size_t added, padding;

    assert_int_equal(complete("{\"type\":\"tool\",\"payload\":{\"a\":\"\"}}"), ERROR_NONE);
    added = text_length - strlen(BEGIN) - strlen(END);
    padding = length - added - strlen(BEGIN) - strlen(END);
    memcpy(line, BEGIN, strlen(BEGIN));
    memset(line + strlen(BEGIN), 'x', padding);
    memcpy(line + strlen(BEGIN) + padding, END, strlen(END));
    return complete_event(completer, line, strlen(BEGIN) + padding + strlen(END), &text,
                          &text_length);
}

static void limits_the_size_of_the_completed_event(void **state)
{
    (void)state;
    assert_int_equal(complete_long(BATCH_EVENT_BYTES), ERROR_NONE);
    assert_int_equal(text_length, BATCH_EVENT_BYTES);
    assert_int_equal(complete_long(BATCH_EVENT_BYTES + 1), ERROR_INVALID_EVENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_a_complete_event_unchanged, make, unmake),
        cmocka_unit_test_setup_teardown(fills_in_missing_members, make, unmake),
        cmocka_unit_test_setup_teardown(never_repeats_an_id, make, unmake),
        cmocka_unit_test_setup_teardown(validates_events_as_the_server_does, make, unmake),
        cmocka_unit_test_setup_teardown(accepts_one_object_per_line, make, unmake),
        cmocka_unit_test_setup_teardown(limits_the_size_of_the_completed_event, make, unmake),
    };

    return cmocka_run_group_tests_name("complete", tests, NULL, NULL);
}
