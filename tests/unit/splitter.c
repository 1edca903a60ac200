#include "event/splitter.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Splits an array of one element, which must be all of it. */
static struct splitter_element only_element(const char *value)
{
    static char body[40000];
    struct splitter splitter;
    struct splitter_element element, none;
    int length = snprintf(body, sizeof(body), "[%s]", value);

    assert_true(length > 0 && (size_t)length < sizeof(body));
    splitter_begin(&splitter, body, (size_t)length);
    if (splitter_next(&splitter, &element) != SPLITTER_ELEMENT)
        fail_msg("no element: %.200s", value);
    assert_int_equal(splitter_next(&splitter, &none), SPLITTER_END);
    return element;
}

static void assert_lax(const char *value, bool expected)
{
    if (only_element(value).is_lax != expected)
        fail_msg("%.200s: not %s", value, expected ? "lax" : "strict");
}

static void assert_broken(const char *body)
{
    struct splitter splitter;
    struct splitter_element element;
    enum splitter_step step;

    splitter_begin(&splitter, body, strlen(body));
    do
        step = splitter_next(&splitter, &element);
    while (step == SPLITTER_ELEMENT);
    if (step != SPLITTER_BROKEN)
        fail_msg("not broken: %s", body);
}

static void finds_the_bytes_of_each_element(void **state)
{
    static const char BODY[] = " [ {\"a\":\"],[\\\"\"} ,\n[1, 2],3 ]\r\n";
    static const char *const EXPECTED[] = {"{\"a\":\"],[\\\"\"}", "[1, 2]", "3"};
    struct splitter splitter;
    struct splitter_element element;
    (void)state;
    splitter_begin(&splitter, BODY, strlen(BODY));
    for (size_t i = 0; i < sizeof(EXPECTED) / sizeof(EXPECTED[0]); i++) {
        assert_int_equal(splitter_next(&splitter, &element), SPLITTER_ELEMENT);
        assert_int_equal(element.length, strlen(EXPECTED[i]));
        assert_memory_equal(element.text, EXPECTED[i], element.length);
    }
    assert_int_equal(splitter_next(&splitter, &element), SPLITTER_END);
}

static void ends_at_once_in_an_empty_array(void **state)
{
    struct splitter splitter;
    struct splitter_element element;
    (void)state;
    splitter_begin(&splitter, " [ \n] ", strlen(" [ \n] "));
    assert_int_equal(splitter_next(&splitter, &element), SPLITTER_END);
}

static void says_where_there_is_no_telling(void **state)
{
    static const char *const BODIES[] = {
        "",   "{}",           "1",     "[",     "[{}", "[{}]]", "[{},]", "[,{}]", "[,]",
        "[}", "[{\"a\":\"b]", "[\"\\", "[{}]x",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BODIES) / sizeof(BODIES[0]); i++)
        assert_broken(BODIES[i]);
}

static void counts_levels_and_nodes(void **state)
{
    struct splitter_element element = only_element("{\"a\":[{},[[]]],\"b\":\"[[[\"}");
    (void)state;
    assert_int_equal(element.depth, 4);
    assert_int_equal(element.nodes, 5);
    assert_int_equal(only_element("7").depth, 0);
    assert_int_equal(only_element("7").nodes, 0);
}

static void notes_raw_control_characters_in_strings_alone(void **state)
{
    (void)state;
    assert_true(only_element("{\"a\":\"\n\"}").has_control);
    assert_false(only_element("{\"a\":\n\"\"}").has_control);
}

static void calls_lax_what_strict_json_or_jsonb_has_not(void **state)
{
    static const char *const BAD[] = {
        "NaN",
        "Infinity",
        "-Infinity",
        "[1,NaN]",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"",
        "\"\\udc00\\ud800\"",
        "{\"\\u0000\":1}",
        "{\"\\udead\":1}",
    };
    static const char *const GOOD[] = {
        "\"\\ud83d\\ude00\"",
        "\"\\u00e9\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\\\u0000\"",
        "\"\\\\ud800\"",
        "\"\\uD83D\\uDE00\"",
        "[true,false,null]",
        "\"NaN\"",
        "\"\x7f\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_lax(BAD[i], true);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_lax(GOOD[i], false);
}

static void calls_numbers_beyond_a_double_lax(void **state)
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
        assert_lax(BAD[i], true);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_lax(GOOD[i], false);
    memset(digits, '9', 400);
    assert_lax(digits, true);
    digits[308] = '\0';
    assert_lax(digits, false);
    memcpy(digits, "0.", 2);
    memset(digits + 2, '0', 399);
    assert_lax(digits, false);
    digits[400] = '1';
    assert_lax(digits, true);
}

static void calls_numbers_beyond_postgresql_s_numeric_lax(void **state)
{
    static const char *const BAD[] = {"0e-20000", "0.0e-16383", "0e99999999999", "0e2000000000",
                                      "0e-99999999999"};
    static const char *const GOOD[] = {"0e-16383", "0e999999", "0e999999999", "1.5e-300"};
    char digits[16500] = "0.";
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_lax(BAD[i], true);
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_lax(GOOD[i], false);
    memset(digits + 2, '1', 16383);
    assert_lax(digits, false);
    digits[2 + 16383] = '1';
    assert_lax(digits, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_bytes_of_each_element),
        cmocka_unit_test(ends_at_once_in_an_empty_array),
        cmocka_unit_test(says_where_there_is_no_telling),
        cmocka_unit_test(counts_levels_and_nodes),
        cmocka_unit_test(notes_raw_control_characters_in_strings_alone),
        cmocka_unit_test(calls_lax_what_strict_json_or_jsonb_has_not),
        cmocka_unit_test(calls_numbers_beyond_a_double_lax),
        cmocka_unit_test(calls_numbers_beyond_postgresql_s_numeric_lax),
    };

    return cmocka_run_group_tests_name("splitter", tests, NULL, NULL);
}
