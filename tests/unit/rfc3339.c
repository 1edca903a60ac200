#include "event/rfc3339.h"
#include "unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool accepts(const char *text)
{
    int64_t ignored;

    return rfc3339_parse(text, strlen(text), &ignored);
}

static void assert_instant(const char *text, int64_t expected)
{
    int64_t instant = -1;

    if (!rfc3339_parse(text, strlen(text), &instant))
        fail_msg("refused: %s", text);
    if (instant != expected)
        fail_msg("%s is %lld, expected %lld", text, (long long)instant, (long long)expected);
}

static void assert_all_refused(const char *const *texts)
{
    for (; *texts != NULL; texts++) {
        if (accepts(*texts))
            fail_msg("accepted: %s", *texts);
    }
}

static void reads_an_instant_in_microseconds(void **state)
{
    (void)state;
    assert_instant("1970-01-01T00:00:00Z", 0);
    assert_instant("2026-02-03T14:30:00Z", INT64_C(1770129000000000));
    assert_instant("2026-02-03T14:30:00.123456789Z", INT64_C(1770129000123457));
    assert_instant("1969-12-31T23:59:59.5Z", -500000);
    assert_instant("0001-01-01T00:00:00Z", INT64_C(-62135596800000000));
    assert_instant("9999-12-31T23:59:59.999999Z", INT64_C(253402300799999999));
    assert_instant("2024-02-29T12:00:00Z", INT64_C(1709208000000000));
    assert_instant("2000-03-01T00:00:00Z", INT64_C(951868800000000));
}

static void takes_lower_case_t_and_z(void **state)
{
    (void)state;
    assert_instant("1970-01-02t00:00:01z", INT64_C(86401000000));
}

static void subtracts_the_offset(void **state)
{
    (void)state;
    assert_instant("1970-01-01T05:30:00+05:30", 0);
    assert_instant("1969-12-31T16:00:00-08:00", 0);
    assert_instant("1970-01-01T15:59:00+15:59", 0);
    assert_instant("1970-01-01T00:00:00-00:00", 0);
}

static void rounds_fractions_of_1_to_30_digits(void **state)
{
    (void)state;
    assert_instant("1970-01-01T00:00:00.1Z", 100000);
    assert_instant("1970-01-01T00:00:00.0000004Z", 0);
    assert_instant("1970-01-01T00:00:00.0000006Z", 1);
    assert_instant("1970-01-01T00:00:00.9999999Z", 1000000);
    assert_instant("1970-01-01T00:00:00.123456789012345678901234567890Z", 123457);
    assert_false(accepts("1970-01-01T00:00:00.1234567890123456789012345678901Z"));
    assert_false(accepts("1970-01-01T00:00:00.Z"));
}

static void refuses_what_is_no_date_or_time(void **state)
{
    static const char *const TEXTS[] = {
        "2026-02-30T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T25:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        NULL,
    };
    (void)state;
    assert_all_refused(TEXTS);
    assert_true(accepts("2000-02-29T00:00:00Z"));
}

static void refuses_every_other_shape(void **state)
{
    static const char *const TEXTS[] = {
        "",
        "now",
        "infinity",
        "J2451187",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00Z",
        "2026-1-1T00:00:00Z",
        "26-01-01T00:00:00Z",
        "+2026-01-01T00:00:00Z",
        "-2026-01-01T00:00:00Z",
        "12026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z ",
        " 2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00ZZ",
        "2026-01-01T00:00:00+0530",
        "2026-01-01T00:00:00+05",
        "2026-01-01T00:00:00+5:30",
        "2026-01-01T00:00:00 UTC",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00.5",
        "2026/01/01T00:00:00Z",
        "2026-01-01T00.00.00Z",
        "20260101T000000Z",
        "2026-W01-1T00:00:00Z",
        "2026-01-01T00:00:0xZ",
        "2026-01-01T00:00:00+05:30:00",
        NULL,
    };
    (void)state;
    assert_all_refused(TEXTS);
}

static void refuses_a_nul_anywhere(void **state)
{
    int64_t ignored;
    (void)state;
    assert_false(rfc3339_parse("2026-01-01T00:00:00Z\0", 21, &ignored));
    assert_false(rfc3339_parse("2026-01-01T00:00:00\0", 20, &ignored));
    assert_false(rfc3339_parse("2026-01-01\000000:00:00Z", 20, &ignored));
}

static void bounds_the_offset_at_15_59(void **state)
{
    (void)state;
    assert_true(accepts("2026-01-01T00:00:00-15:59"));
    assert_false(accepts("2026-01-01T00:00:00+16:00"));
    assert_false(accepts("2026-01-01T00:00:00+23:59"));
    assert_false(accepts("2026-01-01T00:00:00+05:60"));
}

static void bounds_the_instant_to_the_years_1_to_9999(void **state)
{
    static const char *const TEXTS[] = {
        "0000-01-01T00:00:00Z",         "0000-12-31T23:30:00-01:00",
        "0001-01-01T00:30:00+01:00",    "9999-12-31T23:30:00-01:00",
        "9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59.9999995Z", NULL,
    };
    (void)state;
    assert_all_refused(TEXTS);
    assert_true(accepts("0001-01-01T01:00:00+01:00"));
    assert_true(accepts("9999-12-31T23:59:59.9999994Z"));
    assert_true(accepts("9999-12-31T22:59:59-01:00"));
}

static void takes_second_60_only_where_a_leap_second_can_stand(void **state)
{
    static const char *const TEXTS[] = {
        "2016-12-31T23:58:60Z",      "2016-12-30T23:59:60Z",
        "2016-11-30T23:59:60Z",      "2016-12-31T22:59:60Z",
        "2016-12-31T23:59:60.5Z",    "2016-12-31T23:59:60.000000000000001Z",
        "2016-12-31T23:59:60+01:00", "2016-12-31T23:59:61Z",
        "2026-03-31T23:59:60Z",      NULL,
    };
    (void)state;
    assert_instant("2016-12-31T23:59:60Z", INT64_C(1483228800000000));
    assert_instant("2015-06-30T23:59:60Z", INT64_C(1435708800000000));
    assert_instant("2016-12-31T18:59:60-05:00", INT64_C(1483228800000000));
    assert_instant("2017-01-01T00:59:60+01:00", INT64_C(1483228800000000));
    assert_instant("2015-07-01T05:29:60.000+05:30", INT64_C(1435708800000000));
    /* A fraction that rounds to zero is not zero. */
    assert_all_refused(TEXTS);
}

static void writes_nothing_when_it_refuses(void **state)
{
    int64_t instant = 42;
    (void)state;
    assert_false(rfc3339_parse("9999-12-31T23:59:60Z", 20, &instant));
    assert_int_equal(instant, 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_an_instant_in_microseconds),
        cmocka_unit_test(takes_lower_case_t_and_z),
        cmocka_unit_test(subtracts_the_offset),
        cmocka_unit_test(rounds_fractions_of_1_to_30_digits),
        cmocka_unit_test(refuses_what_is_no_date_or_time),
        cmocka_unit_test(refuses_every_other_shape),
        cmocka_unit_test(refuses_a_nul_anywhere),
        cmocka_unit_test(bounds_the_offset_at_15_59),
        cmocka_unit_test(bounds_the_instant_to_the_years_1_to_9999),
        cmocka_unit_test(takes_second_60_only_where_a_leap_second_can_stand),
        cmocka_unit_test(writes_nothing_when_it_refuses),
    };

    return cmocka_run_group_tests_name("rfc3339", tests, NULL, NULL);
}
