#include "import/lines.h"

#include "judge.h"

static struct lines lines;

static void add(const char *text, size_t length)
{
    char *to = lines_next(&lines);

    assert_non_null(to);
    memcpy(to, text, length);
    lines_add(&lines, length, (int64_t)lines.count + 1, ERROR_NONE);
}

/* The verdict on one line between two valid ones, which stay the only ones of the array. */
static enum error judge_line(const char *line, size_t length)
{
    enum error error;

    lines_clear(&lines);
    add(EVENT("evt_1", "{}"), strlen(EVENT("evt_1", "{}")));
    add(line, length);
    add(EVENT("evt_3", "{}"), strlen(EVENT("evt_3", "{}")));
    assert_int_equal(lines.count, 3);
    lines_check(&lines);
    error = lines.events[1].error;
    assert_int_equal(lines.events[0].error, ERROR_NONE);
    assert_int_equal(lines.events[2].error, ERROR_NONE);
    assert_int_equal(lines.valid, error == ERROR_NONE ? 3 : 2);
    /* The event in the middle may have a source of its own. */
    assert_int_equal(judge(lines.text, lines.length),
                     error == ERROR_NONE && strstr(line, "macbook") == NULL ? ERROR_SOURCE_MISMATCH
                                                                            : ERROR_NONE);
    assert_int_equal(batch.count, lines.valid);
    return error;
}

static void assert_line(const char *line, enum error expected)
{
    enum error error = judge_line(line, strlen(line));

    if (error != expected)
        fail_msg("%.200s: %d, expected %d", line, (int)error, (int)expected);
}

static void makes_an_array_of_the_valid_lines(void **state)
{
    (void)state;
    assert_line(EVENT("evt_2", "{}"), ERROR_NONE);
    assert_line(" \t" EVENT("evt_2", "{}") " \r", ERROR_NONE);
    assert_line(EVENT("x", "{}"), ERROR_INVALID_EVENT_ID);
    assert_line(EVENT("evt_2", "[]"), ERROR_INVALID_PAYLOAD);
    assert_line("null", ERROR_INVALID_EVENT);
}

static void no_line_changes_what_its_neighbours_are(void **state)
{
    static const char *const LINES[] = {
        "]",
        "[",
        ",",
        "{",
        "}",
        "\"",
        "\\",
        "{\"id\":\"",
        "],[",
        "/*",
        "\xff",
        "[] []",
        "{},{}",
        "{} {}",
        EVENT("evt_2", "{}") "," EVENT("evt_4", "{}"),
        EVENT("evt_2", "{}") "]",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(LINES) / sizeof(LINES[0]); i++)
        assert_line(LINES[i], ERROR_INVALID_REQUEST);
    assert_int_equal(judge_line("{}\0", 3), ERROR_INVALID_REQUEST);
    assert_int_equal(judge_line("\0", 1), ERROR_INVALID_REQUEST);
}

static void takes_events_of_any_source_that_can_be_asked_for(void **state)
{
    static const struct {
        const char *source;
        enum error error;
    } SOURCES[] = {
        {"\"x\"", ERROR_NONE},
        {"\" J\xc3\xb6rg's \\\"x\\\" \"", ERROR_NONE},
        {"\"\"", ERROR_INVALID_SOURCE},
        {"\"a\\u0007\"", ERROR_INVALID_SOURCE},
        {"\"a\\u0085\"", ERROR_INVALID_SOURCE},
        {"7", ERROR_INVALID_SOURCE},
        {"null", ERROR_INVALID_SOURCE},
    };
    char source[EVENT_SOURCE_BYTES + 4];
    char line[600];
    (void)state;
    for (size_t i = 0; i < sizeof(SOURCES) / sizeof(SOURCES[0]); i++) {
        snprintf(line, sizeof(line),
                 "{\"id\":\"evt_2\",\"source\":%s,\"timestamp\":\"2026-02-03T14:30:00Z\","
                 "\"type\":\"tool\",\"payload\":{}}",
                 SOURCES[i].source);
        assert_line(line, SOURCES[i].error);
    }
    for (size_t length = EVENT_SOURCE_BYTES; length <= EVENT_SOURCE_BYTES + 1; length++) {
        memset(source, 's', length);
        source[length] = '\0';
        snprintf(line, sizeof(line),
                 "{\"id\":\"evt_2\",\"source\":\"%s\",\"timestamp\":\"2026-02-03T14:30:00Z\","
                 "\"type\":\"tool\",\"payload\":{}}",
                 source);
        assert_line(line, length == EVENT_SOURCE_BYTES ? ERROR_NONE : ERROR_INVALID_SOURCE);
    }
    assert_line("{\"id\":\"evt_2\",\"timestamp\":\"2026-02-03T14:30:00Z\",\"type\":\"tool\","
                "\"payload\":{}}",
                ERROR_INVALID_SOURCE);
}

static void skips_lines_of_white_space(void **state)
{
    (void)state;
    lines_clear(&lines);
    add("", 0);
    add(" \t\r", 3);
    assert_int_equal(lines.count, 0);
}

static void has_room_for_a_thousand_events(void **state)
{
    (void)state;
    lines_clear(&lines);
    for (int i = 0; i < LINES_EVENTS; i++)
        add("{}", 2);
    assert_null(lines_next(&lines));
}

static void has_room_for_a_line_of_4_mib_and_then_none(void **state)
{
    char *to;
    (void)state;
    lines_clear(&lines);
    to = lines_next(&lines);
    memset(to, 'x', LINES_BYTES);
    lines_add(&lines, LINES_BYTES - 4, 1, ERROR_NONE);
    to = lines_next(&lines);
    assert_non_null(to);
    memset(to, 'x', LINES_LINE_BYTES);
    lines_add(&lines, LINES_LINE_BYTES, 2, ERROR_NONE);
    assert_null(lines_next(&lines));
    lines_check(&lines);
    assert_in_range(lines.length, 0, sizeof(lines.text));
}

static void an_event_may_be_longer_than_it_was_sent(void **state)
{
    enum { PAYLOAD = 3 * 1024 * 1024 };
    static char line[PAYLOAD + 200];
    char *end = line + sprintf(line, "%s", EVENT("evt_2", "{\"v\":\""));
    (void)state;
    end--; /* the event's brace */
    memset(end, 'x', PAYLOAD);
    memcpy(end + PAYLOAD, "\"}}", 4);
    lines_clear(&lines);
    add(line, strlen(line));
    lines_check(&lines);
    assert_int_equal(lines.events[0].error, ERROR_NONE);
}

static void limits_a_line_to_200000_objects_and_arrays(void **state)
{
    char *line = malloc((size_t)BATCH_NODES * 3 + 200);
    (void)state;
    /* The event, its payload and the array are three. */
    for (int empty = BATCH_NODES - 3; empty <= BATCH_NODES - 2; empty++) {
        char *end = line + sprintf(line, "%s", EVENT("evt_2", "{\"v\":[")) - 1;

        for (int i = 0; i < empty; i++)
            end += sprintf(end, "%s", i > 0 ? ",{}" : "{}");
        memcpy(end, "]}}", 4);
        lines_clear(&lines);
        add(line, strlen(line));
        lines_check(&lines);
        assert_int_equal(lines.events[0].error,
                         empty == BATCH_NODES - 3 ? ERROR_NONE : ERROR_INVALID_EVENT);
    }
    free(line);
}

static void gives_each_valid_event_alone(void **state)
{
    const char *text;
    size_t length;
    (void)state;
    assert_line("x", ERROR_INVALID_REQUEST);
    text = lines_single(&lines, 0, &length);
    assert_int_equal(judge(text, length), ERROR_NONE);
    assert_int_equal(batch.count, 1);
    text = lines_single(&lines, 2, &length);
    assert_int_equal(judge(text, length), ERROR_NONE);
    assert_int_equal(batch.count, 1);
    assert_memory_equal(text, "[" EVENT("evt_3", "{}") "]", length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_an_array_of_the_valid_lines),
        cmocka_unit_test(no_line_changes_what_its_neighbours_are),
        cmocka_unit_test(takes_events_of_any_source_that_can_be_asked_for),
        cmocka_unit_test(skips_lines_of_white_space),
        cmocka_unit_test(has_room_for_a_thousand_events),
        cmocka_unit_test(has_room_for_a_line_of_4_mib_and_then_none),
        cmocka_unit_test(an_event_may_be_longer_than_it_was_sent),
        cmocka_unit_test(limits_a_line_to_200000_objects_and_arrays),
        cmocka_unit_test(gives_each_valid_event_alone),
    };

    return cmocka_run_group_tests_name("lines", tests, NULL, NULL);
}
