#include "event/rfc3339.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_FRACTION_DIGITS = 30,
    OFFSET_HOURS = 15, /* PostgreSQL's limit (MAX_TZDISP_HOUR) */
    SECONDS_PER_DAY = 86400,
};

static const int64_t SECOND = 1000000;
static const int64_t YEAR_0001 = INT64_C(-62135596800);  /* 0001-01-01T00:00:00Z, Unix time */
static const int64_t YEAR_10000 = INT64_C(253402300800); /* 10000-01-01T00:00:00Z */

struct cursor {
    const char *at;
    const char *end;
};

/* Reads exactly so many decimal digits. */
static bool number(struct cursor *c, int digits, int *value)
{
    int n = 0;

    if (c->end - c->at < digits)
        return false;
    for (int i = 0; i < digits; i++) {
        char d = c->at[i];

        if (d < '0' || d > '9')
            return false;
        n = n * 10 + (d - '0');
    }
    c->at += digits;
    *value = n;
    return true;
}

static bool literal(struct cursor *c, const char *either)
{
    if (c->at == c->end || *c->at == '\0' || strchr(either, *c->at) == NULL)
        return false;
    c->at++;
    return true;
}

static bool is_leap_year(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_in_month(int year, int month)
{
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return month == 2 && is_leap_year(year) ? 29 : DAYS[month - 1];
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar, year 1 or later. */
static int64_t days_since_epoch(int year, int month, int day)
{
    static const int BEFORE[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int64_t past = year - 1;
    int64_t days = past * 365 + past / 4 - past / 100 + past / 400;

    days += BEFORE[month - 1] + day - 1;
    if (month > 2 && is_leap_year(year))
        days++;
    return days - 719162; /* from 0001-01-01 to 1970-01-01 */
}

/* Reads ".digits" if it stands there, as a part of a second. */
static bool fraction(struct cursor *c, double *part)
{
    char text[MAX_FRACTION_DIGITS + 3] = "0.";
    size_t digits = 0;

    *part = 0.0;
    if (!literal(c, "."))
        return true;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (digits == MAX_FRACTION_DIGITS)
            return false;
        text[2 + digits++] = *c->at++;
    }
    *part = strtod(text, NULL);
    return digits > 0;
}

/* Reads Z or an offset, in seconds east of UTC. */
static bool offset(struct cursor *c, int *seconds)
{
    int sign, hours, minutes;

    *seconds = 0;
    if (literal(c, "Zz"))
        return true;
    if (!literal(c, "+-"))
        return false;
    sign = c->at[-1] == '-' ? -1 : 1;
    if (!number(c, 2, &hours) || !literal(c, ":") || !number(c, 2, &minutes))
        return false;
    if (hours > OFFSET_HOURS || minutes > 59)
        return false;
    *seconds = sign * (hours * 3600 + minutes * 60);
    return true;
}

/*
 * Whether a leap second can stand before this moment: the first one of a July or a January in UTC.
 * The local year is at most one off.
 */
static bool follows_leap_second(int64_t instant, int local_year)
{
    for (int year = local_year; year <= local_year + 1; year++) {
        if (instant == days_since_epoch(year, 1, 1) * SECONDS_PER_DAY ||
            instant == days_since_epoch(year, 7, 1) * SECONDS_PER_DAY)
            return true;
    }
    return false;
}

bool rfc3339_parse(const char *text, size_t length, int64_t *microseconds)
{
    struct cursor c = {text, text + length};
    int year, month, day, hour, minute, second, east;
    double part;
    int64_t micro, instant;

    if (!number(&c, 4, &year) || !literal(&c, "-") || !number(&c, 2, &month) || !literal(&c, "-") ||
        !number(&c, 2, &day) || !literal(&c, "Tt ") || !number(&c, 2, &hour) || !literal(&c, ":") ||
        !number(&c, 2, &minute) || !literal(&c, ":") || !number(&c, 2, &second) ||
        !fraction(&c, &part) || !offset(&c, &east) || c.at != c.end)
        return false;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;

    instant = days_since_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 +
              second - east;
    if (second == 60 && (part != 0.0 || !follows_leap_second(instant, year)))
        return false;
    /* Through a double and to even, as PostgreSQL does it: both must agree at a year's end. */
    micro = (int64_t)rint(part * (double)SECOND);
    if (instant < YEAR_0001 || instant * SECOND + micro >= YEAR_10000 * SECOND)
        return false;
    *microseconds = instant * SECOND + micro;
    return true;
}
