/* The timestamp. */
#include "event/rfc3339.h"
#include "fuzz.h"

#include <time.h>

static const int64_t SECOND = 1000000;

/* The parts of an accepted timestamp, read from its text. */
struct reading {
    struct tm local;
    const char *fraction;
    size_t digits; /* of the fraction; 0 if there is none */
    int east;      /* seconds */
};

static int two_digits(const char *text)
{
    return (text[0] - '0') * 10 + text[1] - '0';
}

/* Compares with YYYY-MM-DDTHH:MM:SS, where 9 stands for a digit. */
static bool has_shape(const char *text, size_t length, const char *shape)
{
    if (length < strlen(shape))
        return false;
    for (size_t i = 0; shape[i] != '\0'; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';

        if (shape[i] == '9' ? !is_digit : text[i] != shape[i] && (text[i] & ~0x20) != shape[i])
            return false;
    }
    return true;
}

static void read_text(const char *text, size_t length, struct reading *reading)
{
    const char *end = text + length;
    const char *at = text + 19;

    require(has_shape(text, length, "9999-99-99T99:99:99") ||
                has_shape(text, length, "9999-99-99 99:99:99"),
            "a timestamp begins with date and time");
    *reading = (struct reading){
        .local = {.tm_year = two_digits(text) * 100 + two_digits(text + 2) - 1900,
                  .tm_mon = two_digits(text + 5) - 1,
                  .tm_mday = two_digits(text + 8),
                  .tm_hour = two_digits(text + 11),
                  .tm_min = two_digits(text + 14),
                  .tm_sec = two_digits(text + 17)},
    };
    if (at < end && *at == '.') {
        reading->fraction = ++at;
        while (at < end && *at >= '0' && *at <= '9')
            at++;
        reading->digits = (size_t)(at - reading->fraction);
        require(reading->digits >= 1 && reading->digits <= 30, "a fraction has 1 to 30 digits");
    }
    if (has_shape(at, (size_t)(end - at), "+99:99") ||
        has_shape(at, (size_t)(end - at), "-99:99")) {
        reading->east = two_digits(at + 1) * 3600 + two_digits(at + 4) * 60;
        require(reading->east < 16 * 3600 && two_digits(at + 4) < 60, "an offset is up to 15:59");
        reading->east = *at == '-' ? -reading->east : reading->east;
        at += 6;
    } else {
        require(at < end && (*at == 'Z' || *at == 'z'), "an offset stands there");
        at++;
    }
    require(at == end, "nothing follows the offset");
}

/* Whether the fraction's digits round to so many microseconds; a tie may go either way. */
static bool is_rounded(const struct reading *reading, int64_t microseconds)
{
    int64_t whole = 0;
    int64_t rest = 0; /* billionths of a microsecond */

    for (size_t i = 0; i < 15; i++) {
        int digit = i < reading->digits ? reading->fraction[i] - '0' : 0;

        if (i < 6)
            whole = whole * 10 + digit;
        else
            rest = rest * 10 + digit;
    }
    return (microseconds == whole && rest <= 500000001) ||
           (microseconds == whole + 1 && rest >= 499999999);
}

static void check_leap_second(const struct reading *reading, int64_t instant)
{
    time_t seconds = instant / SECOND;
    struct tm utc;

    require(instant % SECOND == 0, "second 60 has no fraction");
    for (size_t i = 0; i < reading->digits; i++)
        require(reading->fraction[i] == '0', "second 60 has no fraction, however small");
    require(gmtime_r(&seconds, &utc) != NULL && utc.tm_sec == 0 && utc.tm_min == 0 &&
                utc.tm_hour == 0 && utc.tm_mday == 1 && (utc.tm_mon == 0 || utc.tm_mon == 6),
            "second 60 ends June or December");
}

static void check_instant(const char *text, size_t length, int64_t instant)
{
    struct reading reading;
    struct tm local;
    int64_t seconds;

    read_text(text, length, &reading);
    require(reading.local.tm_sec <= 60, "second 60 is the last");
    local = reading.local;
    local.tm_sec = 0;
    seconds = timegm(&local) + reading.local.tm_sec - reading.east;
    require(is_rounded(&reading, instant - seconds * SECOND), "the instant is the one written");
    if (reading.local.tm_sec == 60)
        check_leap_second(&reading, instant);

    /* timegm normalizes an invalid date or time. */
    require(local.tm_year == reading.local.tm_year && local.tm_mon == reading.local.tm_mon &&
                local.tm_mday == reading.local.tm_mday,
            "the date exists");
    require(local.tm_hour == reading.local.tm_hour && local.tm_min == reading.local.tm_min,
            "the time exists");
}

/* An instant written in UTC must parse to the same instant. */
static void check_written(int64_t instant)
{
    int64_t fraction = (instant % SECOND + SECOND) % SECOND;
    time_t seconds = (instant - fraction) / SECOND;
    struct tm utc;
    char text[64];
    int64_t again;
    int length;

    require(gmtime_r(&seconds, &utc) != NULL, "the instant is a time");
    length =
        snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.tm_year + 1900,
                 utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)fraction);
    require(length == (int)strlen("0000-00-00T00:00:00.000000Z"), "the year has four digits");
    require(rfc3339_parse(text, (size_t)length, &again) && again == instant,
            "what is written reads as the same");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t UNTOUCHED = INT64_MIN;
    char *text = copy_bytes(data, size);
    int64_t instant = UNTOUCHED;

    if (rfc3339_parse(text, size, &instant)) {
        check_instant(text, size, instant);
        check_written(instant);
    } else {
        require(instant == UNTOUCHED, "a refusal writes nothing");
    }
    free(text);
    return 0;
}
