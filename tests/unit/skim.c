#include "event/skim.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

/* Splits a body of one event and skims it. */
static bool skim(const char *body, struct event *event)
{
    struct splitter splitter;
    struct splitter_element element;

    splitter_begin(&splitter, body, strlen(body));
    assert_int_equal(splitter_next(&splitter, &element), SPLITTER_ELEMENT);
    return skim_event(&element, event);
}

static void assert_text(const struct event_text *text, const char *expected)
{
    assert_int_equal(text->length, strlen(expected));
    assert_memory_equal(text->text, expected, text->length);
}

static void finds_the_members_where_they_stand(void **state)
{
    struct event event;
    (void)state;
    assert_true(
        skim("[ { \"payload\" : {\"id\":[{},[],\"}\\\"\",-1.5,null],\"b\":2} , \"source\":\"a]\",\n"
             "\"other\":{\"type\":1},\"timestamp\":\"\",\"type\":\"tool\",\"id\":\"evt_1\"}]",
             &event));
    assert_text(&event.id, "evt_1");
    assert_text(&event.source, "a]");
    assert_text(&event.timestamp, "");
    assert_text(&event.type, "tool");
    assert_true(event.has_payload);
}

static void prefers_event_type_wherever_it_stands(void **state)
{
    struct event event;
    (void)state;
    assert_true(skim("[{\"eventType\":\"agent\",\"type\":\"tool\"}]", &event));
    assert_text(&event.type, "agent");
    assert_true(skim("[{\"type\":\"tool\",\"eventType\":\"agent\"}]", &event));
    assert_text(&event.type, "agent");
}

static void says_what_is_missing(void **state)
{
    struct event event;
    (void)state;
    assert_true(skim("[{\"ID\":\"evt_1\",\"idx\":\"\",\"i\":1}]", &event));
    assert_null(event.id.text);
    assert_null(event.source.text);
    assert_null(event.timestamp.text);
    assert_null(event.type.text);
    assert_false(event.has_payload);
}

static void leaves_to_others_what_is_not_plain(void **state)
{
    static const char *const BODIES[] = {
        "[{}]",
        "[[]]",
        "[1]",
        "[\"{}\"]",
        "[{\"id\":1}]",
        "[{\"id\":null}]",
        "[{\"id\":\"a\",\"id\":\"b\"}]",
        "[{\"id\":\"\",\"id\":\"\"}]",
        "[{\"payload\":{},\"payload\":{}}]",
        "[{\"payload\":[]}]",
        "[{\"payload\":1}]",
        "[{\"eventType\":null,\"type\":\"tool\"}]",
        "[{\"source\":\"\\u0061\"}]",
        "[{\"\\u0069d\":\"a\"}]",
        "[{\"x\":NaN}]",
        "[{\"x\":\"\\ud800\"}]",
        "[{\"x\":\"\n\"}]",
        "[{\"x\" 1}]",
        "[{\"x\":}]",
        "[{\"x\":1,}]",
        "[{,\"x\":1}]",
        "[{\"x\":1 \"y\":2}]",
        "[{\"x\":1 2}]",
        "[{\"x\":[1,]}]",
        "[{\"x\":[,1]}]",
        "[{\"x\":[1 2]}]",
        "[{\"x\":[\"a\":1]}]",
        "[{\"x\":{1}}]",
        "[{\"x\":{\"a\"}}]",
        "[{\"x\":{\"a\":1,}}]",
        "[{\"x\":{\"a\":1,\"b\"}}]",
        "[{\"x\":{\"a\":1,2}}]",
        "[{\"x\":[1}]]",
        "[{x:1}]",
        "[{\"x\":1} 2]",
    };
    struct event event;
    (void)state;
    for (size_t i = 0; i < sizeof(BODIES) / sizeof(BODIES[0]); i++) {
        if (skim(BODIES[i], &event))
            fail_msg("%s was skimmed", BODIES[i]);
    }
}

static void bounds_its_depth(void **state)
{
    char body[200];
    struct event event;
    (void)state;
    for (int levels = 31; levels <= 32; levels++) {
        snprintf(body, sizeof(body), "[{\"x\":%.*s%.*s}]", levels,
                 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", levels, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
        assert_int_equal(skim(body, &event), levels == 31);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_members_where_they_stand),
        cmocka_unit_test(prefers_event_type_wherever_it_stands),
        cmocka_unit_test(says_what_is_missing),
        cmocka_unit_test(leaves_to_others_what_is_not_plain),
        cmocka_unit_test(bounds_its_depth),
    };

    return cmocka_run_group_tests_name("skim", tests, NULL, NULL);
}
