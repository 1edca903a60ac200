#include "http/reply.h"
#include "unit.h"

#include <json-c/json.h>
#include <string.h>

static struct reply_text out;

static int tear_down(void **state)
{
    (void)state;
    reply_free(&out);
    return 0;
}

static void escapes_a_string(void **state)
{
    (void)state;
    reply_add_string(&out, "a\"b\\c\n\x01\xc3\xbc/", 10);
    assert_string_equal(out.text, "\"a\\u0022b\\u005cc\\u000a\\u0001\xc3\xbc/\"");
}

static void keeps_a_nul_within_a_string(void **state)
{
    (void)state;
    reply_add_string(&out, "a\0b", 3);
    assert_string_equal(out.text, "\"a\\u0000b\"");
    reply_reset(&out);
    reply_add_string(&out, "", 0);
    assert_string_equal(out.text, "\"\"");
}

static void writes_integers_of_any_size(void **state)
{
    (void)state;
    reply_add_integer(&out, 0);
    reply_add_text(&out, " ");
    reply_add_integer(&out, -7);
    reply_add_text(&out, " ");
    reply_add_integer(&out, INT64_MAX);
    reply_add_text(&out, " ");
    reply_add_integer(&out, INT64_MIN);
    assert_string_equal(out.text, "0 -7 9223372036854775807 -9223372036854775808");
}

static void grows_as_needed(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++)
        reply_printf(&out, "%05d", i);
    assert_int_equal(out.length, 500000);
    assert_memory_equal(out.text + 499995, "99999", 6);
    assert_false(out.is_short);
    reply_reset(&out);
    assert_int_equal(out.length, 0);
}

static void writes_every_error_as_json(void **state)
{
    (void)state;
    for (enum error e = ERROR_METHOD_NOT_ALLOWED; e < ERROR_COUNT; e++) {
        struct json_object *parsed;
        struct json_object *member;

        reply_reset(&out);
        reply_add_error(&out, e);
        parsed = json_tokener_parse(out.text);
        assert_true(json_object_object_get_ex(parsed, "error", &member));
        assert_string_equal(json_object_get_string(member), error_entry(e)->code);
        assert_true(json_object_object_get_ex(parsed, "message", &member));
        assert_string_equal(json_object_get_string(member), error_entry(e)->message);
        json_object_put(parsed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(escapes_a_string, tear_down),
        cmocka_unit_test_teardown(keeps_a_nul_within_a_string, tear_down),
        cmocka_unit_test_teardown(writes_integers_of_any_size, tear_down),
        cmocka_unit_test_teardown(grows_as_needed, tear_down),
        cmocka_unit_test_teardown(writes_every_error_as_json, tear_down),
    };

    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
