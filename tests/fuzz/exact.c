#include "exact.h"
#include "fuzz.h"

#include <math.h>

/* The most that a number of one byte grows to: "#1e0". */
enum { GROWTH = 6, EXPONENT_BYTES = 24, DEPTH = 64 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void require_double(const char *text, size_t length)
{
    char *number = copy_text(text, length);
    bool is_zero = strcspn(number, "123456789") >= strcspn(number, "eE");
    double value = strtod(number, NULL);

    require(isfinite(value) && (is_zero || value != 0.0), "a number is one that a double holds");
    free(number);
}

/* Writes a number's digits without zeros around them, and its exponent; returns the length. */
static size_t write_number(char *out, const char *text, size_t length)
{
    const char *end = text + length;
    char *at = out;
    char *digits;
    long exponent = 0;
    bool is_fraction = false;

    *at++ = '"';
    *at++ = '#';
    if (*text == '-')
        *at++ = '-';
    digits = at;
    for (; text < end && *text != 'e' && *text != 'E'; text++) {
        is_fraction = is_fraction || *text == '.';
        if (!is_digit(*text) || (at == digits && *text == '0')) {
            exponent -= is_fraction && is_digit(*text);
            continue;
        }
        exponent -= is_fraction;
        *at++ = *text;
    }
    if (text < end)
        exponent += strtol(text + 1, NULL, 10);
    for (; at > digits && at[-1] == '0'; at--)
        exponent++;
    if (at == digits) { /* zero: its sign and its exponent say nothing */
        at = out + 2;
        exponent = 0;
    }
    return (size_t)(at - out) + (size_t)snprintf(at, EXPONENT_BYTES, "e%ld\"", exponent);
}

static size_t string_length(const char *text, const char *end)
{
    const char *at = text + 1;

    while (at < end && *at != '"')
        at += *at == '\\' ? 2 : 1;
    require(at < end, "a string has an end");
    return (size_t)(at + 1 - text);
}

static size_t number_length(const char *text, const char *end)
{
    const char *at = text;

    while (at < end && (is_digit(*at) || strchr("+-.eE", *at) != NULL))
        at++;
    return (size_t)(at - text);
}

/* Copies JSON with its numbers as strings; returns the length. */
static size_t quote_numbers(char *out, const char *text, size_t length)
{
    const char *end = text + length;
    char *to = out;

    while (text < end) {
        size_t step = *text == '"' ? string_length(text, end) : 1;

        if (*text == '-' || is_digit(*text)) {
            step = number_length(text, end);
            to += write_number(to, text, step);
            require_double(text, step);
        } else {
            memcpy(to, text, step);
            to += step;
        }
        text += step;
    }
    return (size_t)(to - out);
}

struct json_object *exact_parse(const char *text, size_t length)
{
    char *quoted = malloc(length * GROWTH + EXPONENT_BYTES);
    struct json_tokener *tokener = json_tokener_new_ex(DEPTH);
    struct json_object *object;
    size_t quoted_length;

    require(quoted != NULL && tokener != NULL, "there is memory");
    quoted_length = quote_numbers(quoted, text, length);
    object = json_tokener_parse_ex(tokener, quoted, (int)quoted_length);
    require(json_tokener_get_error(tokener) == json_tokener_success, "what is stored is JSON");
    json_tokener_free(tokener);
    free(quoted);
    return object;
}
