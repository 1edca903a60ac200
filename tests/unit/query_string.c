#include "http/query_string.h"
#include "unit.h"

#include <string.h>

static struct query_string parameters;

static void assert_parsed(const char *query, int days, const char *source)
{
    enum error error = query_string_parse(query, &parameters);

    if (error != ERROR_NONE)
        fail_msg("refused with %d: %s", (int)error, query);
    assert_int_equal(parameters.days, days);
    assert_string_equal(parameters.source, source);
    assert_int_equal(parameters.source_length, strlen(source));
}

static void assert_refused(const char *query, enum error expected)
{
    enum error error = query_string_parse(query, &parameters);

    if (error != expected)
        fail_msg("%s: %d, expected %d", query, (int)error, (int)expected);
}

static void defaults_to_7_days_of_all_sources(void **state)
{
    (void)state;
    assert_parsed("", 7, "");
    assert_parsed("&", 7, "");
    assert_parsed("other=1&other=2", 7, "");
}

static void takes_7_and_30_days(void **state)
{
    (void)state;
    assert_parsed("days=7", 7, "");
    assert_parsed("days=30", 30, "");
    assert_parsed("&days=30&", 30, "");
}

static void refuses_other_days(void **state)
{
    static const char *const QUERIES[] = {
        "days=",     "days",      "days=8",           "days=07", "days=7.0", "days=+7",
        "days=%207", "days=7%00", "days=30000000000", "days=-7", "days=7d",  "days=0x7",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(QUERIES) / sizeof(QUERIES[0]); i++)
        assert_refused(QUERIES[i], ERROR_INVALID_DAYS);
}

static void decodes_names_and_values(void **state)
{
    (void)state;
    assert_parsed("da%79s=%33%30", 30, "");
    assert_parsed("source=a+b", 7, "a b");
    assert_parsed("source=a%2Bb%26c%3dd", 7, "a+b&c=d");
    assert_parsed("source=a=b", 7, "a=b");
    assert_parsed("s%6furce=%C3%bc", 7, "\xc3\xbc");
    assert_parsed("days%00=8", 7, "");
}

static void refuses_a_source_that_is_no_name(void **state)
{
    char query[400] = "source=";
    (void)state;
    assert_refused("source=", ERROR_INVALID_SOURCE);
    assert_refused("source", ERROR_INVALID_SOURCE);
    assert_refused("source=a%00b", ERROR_INVALID_SOURCE);
    assert_refused("source=%0a", ERROR_INVALID_SOURCE);
    assert_refused("source=%7f", ERROR_INVALID_SOURCE);
    assert_refused("source=%c2%85", ERROR_INVALID_SOURCE);
    assert_refused("source=%ff", ERROR_INVALID_SOURCE);
    assert_refused("source=%ed%a0%80", ERROR_INVALID_SOURCE);
    memset(query + 7, 'x', 255);
    assert_parsed(query, 7, query + 7);
    memset(query + 7, 'x', 256);
    assert_refused(query, ERROR_INVALID_SOURCE);
}

static void refuses_broken_percent_escapes(void **state)
{
    static const char *const QUERIES[] = {
        "days=%", "days=%3", "days=%zz", "x=%", "%=x", "source=a%2", "x=%2&days=7", "source=%2%30",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(QUERIES) / sizeof(QUERIES[0]); i++)
        assert_refused(QUERIES[i], ERROR_INVALID_QUERY);
}

static void refuses_a_parameter_given_twice(void **state)
{
    (void)state;
    assert_refused("days=7&days=7", ERROR_INVALID_QUERY);
    assert_refused("days=7&da%79s=30", ERROR_INVALID_QUERY);
    assert_refused("source=a&days=7&source=a", ERROR_INVALID_QUERY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_to_7_days_of_all_sources),
        cmocka_unit_test(takes_7_and_30_days),
        cmocka_unit_test(refuses_other_days),
        cmocka_unit_test(decodes_names_and_values),
        cmocka_unit_test(refuses_a_source_that_is_no_name),
        cmocka_unit_test(refuses_broken_percent_escapes),
        cmocka_unit_test(refuses_a_parameter_given_twice),
    };

    return cmocka_run_group_tests_name("query_string", tests, NULL, NULL);
}
