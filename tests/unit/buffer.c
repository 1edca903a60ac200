#include "base/buffer.h"
#include "unit.h"

static struct buffer out;

static int tear_down(void **state)
{
    (void)state;
    buffer_free(&out);
    return 0;
}

static void escapes_a_string(void **state)
{
    (void)state;
    buffer_add_json(&out, "a\"b\\c\n\x01\xc3\xbc/", 10);
    assert_string_equal(out.text, "\"a\\u0022b\\u005cc\\u000a\\u0001\xc3\xbc/\"");
}

static void keeps_a_nul_within_a_string(void **state)
{
    (void)state;
    buffer_add_json(&out, "a\0b", 3);
    assert_string_equal(out.text, "\"a\\u0000b\"");
    buffer_reset(&out);
    buffer_add_json(&out, "", 0);
    assert_string_equal(out.text, "\"\"");
}

static void writes_integers_of_any_size(void **state)
{
    (void)state;
    buffer_add_integer(&out, 0);
    buffer_add_text(&out, " ");
    buffer_add_integer(&out, -7);
    buffer_add_text(&out, " ");
    buffer_add_integer(&out, INT64_MAX);
    buffer_add_text(&out, " ");
    buffer_add_integer(&out, INT64_MIN);
    assert_string_equal(out.text, "0 -7 9223372036854775807 -9223372036854775808");
}

static void grows_as_needed(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++)
        buffer_printf(&out, "%05d", i);
    assert_int_equal(out.length, 500000);
    assert_memory_equal(out.text + 499995, "99999", 6);
    assert_false(out.is_short);
    buffer_reset(&out);
    assert_int_equal(out.length, 0);
}

static void adds_nothing_more_once_something_did_not_fit(void **state)
{
    (void)state;
    buffer_add_text(&out, "kept");
    buffer_printf(&out, "%2000d", 1);
    assert_true(out.is_short);
    buffer_add_text(&out, "more");
    assert_string_equal(out.text, "kept");
    buffer_reset(&out);
    buffer_add_text(&out, "more");
    assert_string_equal(out.text, "more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(escapes_a_string, tear_down),
        cmocka_unit_test_teardown(keeps_a_nul_within_a_string, tear_down),
        cmocka_unit_test_teardown(writes_integers_of_any_size, tear_down),
        cmocka_unit_test_teardown(grows_as_needed, tear_down),
        cmocka_unit_test_teardown(adds_nothing_more_once_something_did_not_fit, tear_down),
    };

    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
