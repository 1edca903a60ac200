#include "http/query_string.h"
#include "unit.h"

#include <stdio.h>

static struct query_string parameters;

static void assert_parsed(const char *query, int days, const char *source)
{
    enum error error = query_string_parse(query, &parameters);

    if (error != ERROR_NONE)
        fail_msg("refused with %d: %s", (int)error, query);
    if (parameters.days != days)
        fail_msg("%s: %d days, expected %d", query, parameters.days, days);
    assert_string_equal(parameters.source, source);
    assert_int_equal(parameters.source_length, strlen(source));
}

static void assert_days(const char *queries, int days)
{
    char query[LISTED_BYTES];

    while (next_listed(&queries, query))
        assert_parsed(query, days, "");
}

static void assert_refused(const char *query, enum error expected)
{
    enum error error = query_string_parse(query, &parameters);

    if (error != expected)
        fail_msg("%s: %d, expected %d", query, (int)error, (int)expected);
}

/* Refuses each of a list of query strings, all with the same beginning. */
static void assert_all_refused(const char *beginning, const char *list, enum error expected)
{
    char end[LISTED_BYTES];
    char query[2 * LISTED_BYTES];

    while (next_listed(&list, end)) {
        snprintf(query, sizeof(query), "%s%s", beginning, end);
        assert_refused(query, expected);
    }
}

/* A query string that repeats a text. */
static const char *repeated(const char *beginning, const char *text, size_t count)
{
    static char query[2000];
    char *at = stpcpy(query, beginning);

    while (count-- > 0)
        at = stpcpy(at, text);
    return query;
}

static void defaults_to_7_days_of_all_sources(void **state)
{
    (void)state;
    assert_days("|&|x=1|other=1&other=2", 7);
}

static void accepts_7_and_30_days(void **state)
{
    (void)state;
    assert_days("days=7|days=%37", 7);
    assert_days("days=30|&days=30|days=30&|&days=30&|&&days=30&&|da%79s=30|da%79s=%33%30|"
                "%64%61%79%73=%33%30",
                30);
}

static void refuses_other_days(void **state)
{
    (void)state;
    assert_all_refused("days",
                       "|=|=0|=1|=8|=14|=29|=31|=70|=77|=730|=07|=7.0|=7,30|=+7|=%2B7|=7+|=+30|"
                       "=%207|=7%20|=-7|=7%00|=%007|=7d|=7days|=7%0A|=0x7|=7e0|=1e1|=seven|=NaN|"
                       "=null|=%D9%A7|=%EF%BC%97|=30%FF|=30000000000|=7=|=7;30|=%2537",
                       ERROR_INVALID_DAYS);
    assert_refused(repeated("days=", "9", 400), ERROR_INVALID_DAYS);
}

static void ignores_unknown_parameters(void **state)
{
    (void)state;
    assert_days("x=1&days=30|days=30&x|days=30&x=days%3D7|x==&days=30|days=30&x=%E2%82%AC", 30);
    assert_days("Days=30|DAYS=x|days[]=30|+days=30|days+=30|=30|day=30|days%00=8|x=%2B&y=+|"
                "dayss=x&source2=",
                7);
    assert_parsed(repeated("days=30", "&x=1", 300), 30, "");
}

static void assert_grouping(const char *query, enum query_grouping grouping)
{
    assert_int_equal(query_string_parse(query, &parameters), ERROR_NONE);
    if (parameters.grouping != grouping)
        fail_msg("%s: grouping %d, expected %d", query, (int)parameters.grouping, (int)grouping);
}

static void groups_by_hour_or_source(void **state)
{
    (void)state;
    assert_grouping("", QUERY_BY_SOURCE_AND_HOUR);
    assert_grouping("Group_by=hour&groupby=source&group_by[]=hour", QUERY_BY_SOURCE_AND_HOUR);
    assert_grouping("group_by=hour", QUERY_BY_HOUR);
    assert_grouping("group%5Fby=sourc%65", QUERY_BY_SOURCE);
    assert_grouping("group_by=source&days=30&source=a", QUERY_BY_SOURCE);
    assert_int_equal(parameters.days, 30);
    assert_string_equal(parameters.source, "a");
}

static void refuses_other_groupings(void **state)
{
    (void)state;
    assert_all_refused("group_by",
                       "|=|=HOUR|=Hour|=SOURCE|=hours|=hou|=sources|=day|=date|=hour,source|=+hour|"
                       "=hour+|=hour%00|=%00|=%FF|=hour%0A|=hour=|=null|=7",
                       ERROR_INVALID_GROUP_BY);
    assert_refused(repeated("group_by=", "hour", 100), ERROR_INVALID_GROUP_BY);
}

static void checks_days_then_source_then_group_by(void **state)
{
    (void)state;
    assert_refused("group_by=x&source=&days=8", ERROR_INVALID_DAYS);
    assert_refused("group_by=x&source=", ERROR_INVALID_SOURCE);
    assert_refused("group_by=x&x=%zz", ERROR_INVALID_QUERY);
}

static void decodes_names_and_values(void **state)
{
    (void)state;
    assert_parsed("source=a+b", 7, "a b");
    assert_parsed("source=a%20b", 7, "a b");
    assert_parsed("source=a%2Bb%26c%3dd", 7, "a+b&c=d");
    assert_parsed("source=a=b", 7, "a=b");
    assert_parsed("sour%63e=a%2bb", 7, "a+b");
    assert_parsed("s%6furce=%C3%bc", 7, "\u00fc");
    assert_parsed("source=+lead", 7, " lead");
    assert_parsed("source=%2541", 7, "%41");
}

static void refuses_a_source_that_no_event_can_have(void **state)
{
    (void)state;
    assert_all_refused("source",
                       "|=|=%00|=a%00b|=a%0Ab|=%0a|=%0D|=%09|=%1F|=x%01|=%7F|=%c2%85|=%C2%80|"
                       "=%FF|=a%C3|=%C0%80|=%C0%AF|=%ED%A0%80|=%F4%90%80%80|=%80",
                       ERROR_INVALID_SOURCE);
}

static void accepts_a_source_of_up_to_255_bytes(void **state)
{
    const char *longest = repeated("source=", "x", 255);
    (void)state;
    assert_parsed(longest, 7, longest + 7);
    assert_refused(repeated("source=", "x", 256), ERROR_INVALID_SOURCE);
    assert_refused(repeated("source=", "%C3%A9", 128), ERROR_INVALID_SOURCE);
}

static void refuses_broken_percent_escapes(void **state)
{
    (void)state;
    assert_all_refused(
        "",
        "days=%|days=7%|days=%3|days=%zz|days=%g7|days=%%37|x=%|%=x|%zz=1|source=%zz|"
        "source=a%2|source=100%|source=%2%30|source=%+41|source=%u0041|x=%2&days=7|"
        "days=7&x=%|days=7&x=%f|days=7&%",
        ERROR_INVALID_QUERY);
}

static void refuses_a_parameter_given_twice(void **state)
{
    (void)state;
    assert_all_refused("",
                       "days=7&days=7|days=7&days=30|days=7&x=1&days=7|days=7&da%79s=7|days&days|"
                       "source=a&source=a|source=a&sourc%65=b|source=a&days=7&source=b|"
                       "group_by=hour&group_by=hour|group_by=hour&group_by=source|"
                       "group_by=x&group%5fby|group_by&group_by",
                       ERROR_INVALID_QUERY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_to_7_days_of_all_sources),
        cmocka_unit_test(accepts_7_and_30_days),
        cmocka_unit_test(refuses_other_days),
        cmocka_unit_test(groups_by_hour_or_source),
        cmocka_unit_test(refuses_other_groupings),
        cmocka_unit_test(checks_days_then_source_then_group_by),
        cmocka_unit_test(ignores_unknown_parameters),
        cmocka_unit_test(decodes_names_and_values),
        cmocka_unit_test(refuses_a_source_that_no_event_can_have),
        cmocka_unit_test(accepts_a_source_of_up_to_255_bytes),
        cmocka_unit_test(refuses_broken_percent_escapes),
        cmocka_unit_test(refuses_a_parameter_given_twice),
    };

    return cmocka_run_group_tests_name("query_string", tests, NULL, NULL);
}
