#include "event/rfc3339.h"
#include "unit.h"

#include <stdio.h>

static void assert_instant(const char *text, int64_t expected)
{
    int64_t instant = -1;

    if (!rfc3339_parse(text, strlen(text), &instant))
        fail_msg("refused: %s", text);
    if (instant != expected)
        fail_msg("%s is %lld, expected %lld", text, (long long)instant, (long long)expected);
}

static void assert_refused(const char *text, size_t length)
{
    int64_t ignored;

    if (rfc3339_parse(text, length, &ignored))
        fail_msg("accepted: %.*s", (int)length, text);
}

static void assert_all_refused(const char *list)
{
    char text[LISTED_BYTES];

    while (next_listed(&list, text))
        assert_refused(text, strlen(text));
}

static void reads_dates_and_times(void **state)
{
    (void)state;
    assert_instant("1970-01-01T00:00:00Z", 0);
    assert_instant("2026-02-03T14:30:00Z", 1770129000000000);
    assert_instant("2026-02-03T00:00:00Z", 1770076800000000);
    assert_instant("2026-02-03T23:59:59Z", 1770163199000000);
    assert_instant("2026-04-30T00:00:00Z", 1777507200000000);
    assert_instant("2026-12-31T23:59:59Z", 1798761599000000);
    assert_instant("2024-02-29T12:00:00Z", 1709208000000000);
    assert_instant("2000-02-29T00:00:00Z", 951782400000000);
    assert_instant("2000-03-01T00:00:00Z", 951868800000000);
    assert_instant("1900-02-28T00:00:00Z", -2203977600000000);
    assert_instant("1969-12-31T23:59:59.5Z", -500000);
    assert_instant("2038-01-19T03:14:08Z", 2147483648000000);
}

static void accepts_lower_case_t_and_z(void **state)
{
    (void)state;
    assert_instant("2026-02-03t14:30:00z", 1770129000000000);
    assert_instant("2026-02-03T14:30:00z", 1770129000000000);
    assert_instant("2026-02-03t14:30:00Z", 1770129000000000);
    assert_instant("2026-02-03t14:30:00.5z", 1770129000500000);
}

/* RFC 3339, 5.6; as GNU date --rfc-3339 writes it. */
static void accepts_one_space_for_the_t(void **state)
{
    (void)state;
    assert_instant("2026-02-03 14:30:00Z", 1770129000000000);
    assert_instant("2026-02-03 14:30:00z", 1770129000000000);
    assert_instant("2026-02-03 14:30:00+00:00", 1770129000000000);
    assert_instant("2026-02-03 15:30:00.123456789+01:00", 1770129000123457);
    assert_instant("2016-12-31 23:59:60Z", 1483228800000000);
}

static void subtracts_offsets_up_to_15_59(void **state)
{
    (void)state;
    assert_instant("2026-02-03T14:30:00+00:00", 1770129000000000);
    assert_instant("2026-02-03T14:30:00-00:00", 1770129000000000);
    assert_instant("2026-02-03T14:30:00-00:01", 1770129060000000);
    assert_instant("2026-02-03T14:30:00+05:30", 1770109200000000);
    assert_instant("2026-02-03T14:30:00-08:00", 1770157800000000);
    assert_instant("2026-02-03T14:30:00+15:59", 1770071460000000);
    assert_instant("2026-02-03T14:30:00-15:59", 1770186540000000);
    assert_all_refused("2026-02-03T14:30:00+01:60|2026-02-03T14:30:00+05:60|"
                       "2026-02-03T14:30:00+15:60|2026-02-03T14:30:00+16:00|"
                       "2026-02-03T14:30:00-16:00|2026-02-03T14:30:00+23:59|"
                       "2026-02-03T14:30:00-23:59|2026-02-03T14:30:00+24:00|"
                       "2026-02-03T14:30:00+99:99");
}

static void rounds_a_fraction_to_the_microsecond(void **state)
{
    (void)state;
    assert_instant("2026-02-03T14:30:00.1Z", 1770129000100000);
    assert_instant("2026-02-03T14:30:00.0000004Z", 1770129000000000);
    assert_instant("2026-02-03T14:30:00.0000006Z", 1770129000000001);
    assert_instant("2026-02-03T14:30:00.123456789Z", 1770129000123457);
    assert_instant("2026-02-03T14:30:00.123456789+01:00", 1770125400123457);
    assert_instant("2026-02-03T23:59:59.9999999Z", 1770163200000000);
    assert_instant("2026-02-03T14:30:00.123456789012345678901234567890Z", 1770129000123457);
}

static void accepts_1_to_30_fraction_digits(void **state)
{
    char text[300];
    char digits[200];
    (void)state;
    memset(digits, '1', sizeof(digits));
    for (int count = 0; count <= (int)sizeof(digits); count++) {
        int64_t ignored;
        int length = snprintf(text, sizeof(text), "2026-02-03T14:30:00.%.*sZ", count, digits);

        if (rfc3339_parse(text, (size_t)length, &ignored) != (count >= 1 && count <= 30))
            fail_msg("%d digits", count);
    }
}

static void refuses_a_date_or_time_that_does_not_exist(void **state)
{
    (void)state;
    assert_all_refused("2026-00-03T14:30:00Z|2026-13-03T14:30:00Z|2026-02-00T14:30:00Z|"
                       "2026-01-32T14:30:00Z|2026-02-29T00:00:00Z|2026-02-30T14:30:00Z|"
                       "2026-02-31T14:30:00Z|2026-04-31T14:30:00Z|2026-06-31T14:30:00Z|"
                       "2026-09-31T00:00:00Z|2026-11-31T00:00:00Z|2025-02-29T00:00:00Z|"
                       "1900-02-29T00:00:00Z|2100-02-29T00:00:00Z|2024-02-30T00:00:00Z|"
                       "2026-02-03T24:00:00Z|2026-02-03T25:00:00Z|2026-02-03T14:60:00Z|"
                       "2026-02-03T14:30:61Z|2026-02-03T14:30:99Z");
}

static void refuses_every_other_form(void **state)
{
    char text[5020];
    (void)state;
    assert_all_refused(
        "| |x|now|NOW|infinity|-infinity|epoch|today|tomorrow|yesterday|"
        "allballs|J2451187|J2451187T00:00:00Z|1770129000|1770129000.5|"
        "20260203T143000Z|2026-02-03|14:30:00Z|2026-02-03T14:30:00|"
        "2026-02-03T14:30:00 Z|2026-02-03T14:30Z|2026-02-03T14Z|"
        "2026-02-03  14:30:00Z|2026-02-03_14:30:00Z|2026-02-03\t14:30:00Z|2026-02-03\n14:30:00Z|"
        "2026-02-03\u00a014:30:00Z|2026-02-03T 14:30:00Z|2026-02-03 14:30:00 Z|"
        "2026-02-03 14:30:00 +00:00| 2026-02-03 14:30:00Z|2026-02-03 14:30:00Z |"
        "2026-02-03 14:30:00|2026-02-03T14:30:00UTC|"
        "2026-02-03T14:30:00 UTC|2026-02-03T14:30:00 Europe/Berlin|"
        "2026-02-03T14:30:00EST|2026-02-03T14:30:00PST8PDT|"
        "2026-02-03T14:30:00Z BC|2026-02-03T14:30:00ZZ|2026-02-03T14:30:00Z |"
        " 2026-02-03T14:30:00Z|2026-02-03T14:30:00Z\n|\t2026-02-03T14:30:00Z|"
        "2026-02-03T14:30:00Z+00:00|2026-02-03T14:30:00+|2026-02-03T14:30:00+01|"
        "2026-02-03T14:30:00+0100|2026-02-03T14:30:00+1:00|"
        "2026-02-03T14:30:00+01:0|2026-02-03T14:30:00+01:00:00|"
        "2026-02-03T14:30:00+001:00|2026-02-03T14:30:00\u221201:00|"
        "2026-02-03T14:30:00\u00b101:00|2026-2-3T14:30:00Z|26-02-03T14:30:00Z|"
        "02026-02-03T14:30:00Z|+2026-02-03T14:30:00Z|-2026-02-03T14:30:00Z|"
        "2026/02/03T14:30:00Z|2026:02:03T14:30:00Z|03-02-2026T14:30:00Z|"
        "2026-W06-2T14:30:00Z|2026-034T14:30:00Z|2026-02-03T4:30:00Z|"
        "2026-02-03T14:3:00Z|2026-02-03T14:30:0Z|2026-02-03T14:30:0xZ|"
        "2026-02-03T014:30:00Z|2026-02-03T-4:30:00Z|2026-02-03T14.30.00Z|"
        "2026-02-03T143000Z|2026-02-03T14:30:00.Z|2026-02-03T14:30:00,5Z|"
        "2026-02-03T14:30:00.5|2026-02-03T14:30:00.5.5Z|2026-02-03T14:30:00.-5Z|"
        "2026-02-03T14:30:00.5 Z|2026-02-03T14:30:00.5eZ|"
        "2026-02-03T14:30:00.1e3Z|2026-02-03T14:30.5Z|"
        "2026-02-03T14:30:00.\u0665Z|\u0662026-02-03T14:30:00Z");
    memset(text, '2', sizeof(text));
    assert_refused(text, 300);
    memcpy(text, "2026-02-03T14:30:00Z", 20);
    assert_refused(text, sizeof(text));
}

static void refuses_a_nul(void **state)
{
    static const struct {
        char text[24];
        size_t length;
    } BAD[] = {
        {"\0002026-02-03T14:30:00Z", 21},   {"2026-02-03T14:30:00Z\0", 21},
        {"2026-02-03T14:30:00Z\0x", 22},    {"2026-02-03T14:30:00Z\0\0\0", 23},
        {"2026-02-03T14:30:00.\0005Z", 23}, {"2026-02-03T14:30:00\0Z", 21},
        {"2026-02-03T14:30:00\0", 20},      {"2026-02-03\00014:30:00Z", 20},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_refused(BAD[i].text, BAD[i].length);
}

static void accepts_instants_of_the_years_1_to_9999(void **state)
{
    (void)state;
    assert_instant("0001-01-01T00:00:00Z", -62135596800000000);
    assert_instant("0001-01-01T00:00:00-00:01", -62135596740000000);
    assert_instant("0001-01-01T01:00:00+01:00", -62135596800000000);
    assert_instant("0001-01-01T15:59:00+15:59", -62135596800000000);
    assert_instant("9999-12-31T23:59:59Z", 253402300799000000);
    assert_instant("9999-12-31T23:59:59.999999Z", 253402300799999999);
    assert_instant("9999-12-31T23:59:59.9999994Z", 253402300799999999);
    assert_instant("9999-12-31T22:59:59-01:00", 253402300799000000);
    assert_instant("9999-12-31T23:59:59+00:01", 253402300739000000);
    assert_all_refused("0000-01-01T00:00:00Z|0000-12-31T23:59:59Z|0000-12-31T23:30:00-01:00|"
                       "0000-12-31T23:59:00-00:01|0000-12-31T08:01:00-15:59|"
                       "0001-01-01T00:30:00+01:00|0001-01-01T00:00:00+00:01|"
                       "0001-01-01T15:58:59+15:59|9999-12-31T23:30:00-01:00|"
                       "9999-12-31T23:59:59-00:01|9999-12-31T08:01:00-15:59|"
                       "9999-12-31T23:59:59.9999995Z|9999-12-31T23:59:59.9999999Z|"
                       "9999-12-31T23:59:60Z|10000-01-01T00:00:00Z|10000-01-01T00:00:00+00:01|"
                       "12026-01-01T00:00:00Z|99999-12-31T23:59:59Z|294277-01-01T00:00:00Z|"
                       "4714-11-24T00:00:00Z BC");
}

static void accepts_second_60_only_as_a_leap_second(void **state)
{
    (void)state;
    assert_instant("2016-12-31T23:59:60Z", 1483228800000000);
    assert_instant("2016-12-31T23:59:60z", 1483228800000000);
    assert_instant("2015-06-30T23:59:60Z", 1435708800000000);
    assert_instant("2030-06-30T23:59:60Z", 1909094400000000);
    assert_instant("2016-12-31T23:59:60.0Z", 1483228800000000);
    assert_instant("2016-12-31T23:59:60.000000000Z", 1483228800000000);
    assert_instant("2016-12-31T18:59:60-05:00", 1483228800000000);
    assert_instant("2017-01-01T00:59:60+01:00", 1483228800000000);
    assert_instant("2017-01-01T08:59:60+09:00", 1483228800000000);
    assert_instant("2015-07-01T05:29:60+05:30", 1435708800000000);
    assert_instant("2015-07-01T05:29:60.000+05:30", 1435708800000000);
    assert_instant("2016-12-31T08:00:60-15:59", 1483228800000000);
    assert_all_refused("2026-02-03T14:30:60Z|2016-12-31T23:58:60Z|2016-12-31T22:59:60Z|"
                       "2016-12-30T23:59:60Z|2016-11-30T23:59:60Z|2017-03-31T23:59:60Z|"
                       "2026-03-31T23:59:60Z|2016-09-30T23:59:60Z|2016-12-31T23:59:60+01:00|"
                       "2016-12-31T23:59:60-01:00|2017-01-01T00:59:60Z|"
                       "2017-01-01T08:59:60+08:00|2016-12-31T23:59:60.5Z|"
                       "2016-12-31T23:59:60.000000001Z|2016-12-31T23:59:60.000000000000001Z|"
                       "2016-12-31T23:59:60.999Z|2016-12-31T23:59:61Z|2015-06-29T23:59:60Z|"
                       "2015-06-30T23:60:60Z|2015-07-01T00:00:60Z");
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
        cmocka_unit_test(reads_dates_and_times),
        cmocka_unit_test(accepts_lower_case_t_and_z),
        cmocka_unit_test(accepts_one_space_for_the_t),
        cmocka_unit_test(subtracts_offsets_up_to_15_59),
        cmocka_unit_test(rounds_a_fraction_to_the_microsecond),
        cmocka_unit_test(accepts_1_to_30_fraction_digits),
        cmocka_unit_test(refuses_a_date_or_time_that_does_not_exist),
        cmocka_unit_test(refuses_every_other_form),
        cmocka_unit_test(refuses_a_nul),
        cmocka_unit_test(accepts_instants_of_the_years_1_to_9999),
        cmocka_unit_test(accepts_second_60_only_as_a_leap_second),
        cmocka_unit_test(writes_nothing_when_it_refuses),
    };

    return cmocka_run_group_tests_name("rfc3339", tests, NULL, NULL);
}
