#include "monitor/complete.h"
#include "unit.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct completer *completer;
static const int64_t NOW = 1770129300123; /* 2026-02-03T14:35:00.123Z */
static const int64_t NOT_SET = 0;

static struct completed completed;

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
    return complete_event(completer, line, strlen(line), NOW, &completed);
}

static void assert_same(const char *line, const char *expected)
{
    assert_int_equal(complete(line), ERROR_NONE);
    assert_int_equal(completed.length, strlen(expected));
    assert_memory_equal(completed.text, expected, completed.length);
}

/* A member of the completed event, read by json-c; valid until the next call. */
static const char *member(const char *name)
{
    static char value[256];
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *object =
        json_tokener_parse_ex(tokener, completed.text, (int)completed.length);
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
    assert_int_equal(complete(line), ERROR_NONE);
    assert_memory_equal(completed.text + completed.length - strlen(rest), rest, strlen(rest));
    assert_int_equal(strlen(member("id")), COMPLETE_ID_BYTES);
    assert_memory_equal(member("id"), "evt_", 4);
    assert_int_equal(strspn(member("id") + 4, "abcdefghijklmnopqrstuvwxyz0123456789"), 20);
    assert_string_equal(member("timestamp"), "2026-02-03T14:35:00.123Z");
    assert_true(completed.has_timestamp);
    assert_false(completed.has_source);
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
        memcpy(ids[i], completed.text + strlen("{\"id\":\""), COMPLETE_ID_BYTES);
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
        complete_event(completer, "{\"type\":\"tool\",\"payload\":{}\0}", 30, NOW, &completed),
        ERROR_INVALID_REQUEST);
}

static void adds_no_timestamp_while_the_clock_is_not_set(void **state)
{
    static const char LINE[] = "{\"id\":\"evt_1\",\"type\":\"tool\",\"payload\":{}}";
    (void)state;
    assert_int_equal(complete_event(completer, LINE, strlen(LINE), NOT_SET, &completed),
                     ERROR_NONE);
    assert_false(completed.has_timestamp);
    assert_int_equal(completed.length, strlen(LINE));
    assert_memory_equal(completed.text, LINE, strlen(LINE));
}

/* Completes a line that is padded to a length. */
static enum error complete_padded(const char *members, size_t length, int64_t now)
{
    static char line[COMPLETE_LINE_BYTES];
    int begin = snprintf(line, sizeof(line), "{%s\"type\":\"tool\",\"payload\":{\"a\":\"", members);

    memset(line + begin, 'x', length - (size_t)begin);
    memcpy(line + length - 3, "\"}}", 3);
    return complete_event(completer, line, length, now, &completed);
}

/* The name may change before an event is sent, and the timestamp may still be missing. */
static void limits_the_size_that_the_event_will_have(void **state)
{
    static const char ID[] = "\"id\":\"evt_1\",";
    static const char STAMP[] = "\"timestamp\":\"2026-02-03T14:35:00.123Z\",";
    static const char SOURCE[] = "\"source\":\"lap \\\"1\\\"\",";
    const size_t longest = strlen("\"source\":\"\",") + 255;
    const struct {
        const char *members[3];
        size_t added;
    } CASES[] = {
        {{ID, STAMP, SOURCE}, 0},
        {{ID, STAMP, ""}, longest},
        {{ID, "", SOURCE}, strlen(STAMP)},
        {{"", STAMP, SOURCE}, strlen("\"id\":\"\",") + COMPLETE_ID_BYTES},
        {{ID, "", ""}, strlen(STAMP) + longest},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char members[256];
        const size_t most = BATCH_EVENT_BYTES - CASES[i].added;

        snprintf(members, sizeof(members), "%s%s%s", CASES[i].members[0], CASES[i].members[1],
                 CASES[i].members[2]);
        for (int j = 0; j < 2; j++) {
            const int64_t now = j == 0 ? NOW : NOT_SET;

            assert_int_equal(complete_padded(members, most, now), ERROR_NONE);
            assert_int_equal(complete_padded(members, most + 1, now), ERROR_INVALID_EVENT);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_a_complete_event_unchanged, make, unmake),
        cmocka_unit_test_setup_teardown(fills_in_missing_members, make, unmake),
        cmocka_unit_test_setup_teardown(never_repeats_an_id, make, unmake),
        cmocka_unit_test_setup_teardown(validates_events_as_the_server_does, make, unmake),
        cmocka_unit_test_setup_teardown(accepts_one_object_per_line, make, unmake),
        cmocka_unit_test_setup_teardown(adds_no_timestamp_while_the_clock_is_not_set, make, unmake),
        cmocka_unit_test_setup_teardown(limits_the_size_that_the_event_will_have, make, unmake),
    };

    return cmocka_run_group_tests_name("complete", tests, NULL, NULL);
}
