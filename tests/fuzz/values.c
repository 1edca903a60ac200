#include "values.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PICK(array) ((array)[values_draw(COUNT(array))])

static const struct member {
    const char *name;
    enum value_kind kind;
} MEMBERS[] = {
    {"id", VALUE_ID},     {"source", VALUE_SOURCE},  {"timestamp", VALUE_TIMESTAMP},
    {"type", VALUE_TYPE}, {"eventType", VALUE_TYPE}, {"payload", VALUE_PAYLOAD},
    {"other", VALUE_ANY},
};

static uint32_t state = 1;

void values_seed(uint32_t seed)
{
    state = seed | 1;
}

/* Marsaglia's xorshift. */
uint32_t values_draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

static bool one_in(uint32_t odds)
{
    return values_draw(odds) == 0;
}

void values_add(struct text *text, const char *format, ...)
{
    size_t left = sizeof(text->bytes) - text->length;
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text->bytes + text->length, left, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < left)
        text->length += (size_t)length;
}

/* Adds one of the words between spaces. */
static void add_one_of(struct text *text, const char *words)
{
    uint32_t count = 1;

    for (const char *at = words; *at != '\0'; at++)
        count += *at == ' ';
    for (uint32_t left = values_draw(count); left > 0; left--)
        words = strchr(words, ' ') + 1;
    values_add(text, "%.*s", (int)strcspn(words, " "), words);
}

/* Adds some of the characters given, in any order. */
static void add_some_of(struct text *text, uint32_t count, const char *characters)
{
    for (uint32_t i = 0; i < count; i++)
        values_add(text, "%c", characters[values_draw((uint32_t)strlen(characters))]);
}

static void add_digits(struct text *text, uint32_t count)
{
    static const char *const DIGITS[] = {"0", "9", "5", "49", "0123456789"};

    add_some_of(text, count, PICK(DIGITS));
}

static void add_fraction(struct text *text)
{
    values_add(text, ".");
    if (one_in(2))
        add_one_of(text, "0000005 0000015 1234565 9999995 999999499 0000025000000 5 999999");
    if (one_in(2) || text->bytes[text->length - 1] == '.')
        add_digits(text, 1 + values_draw(23));
}

/* The edges of dates, of times and of what PostgreSQL holds, and all between them. */
static void add_timestamp(struct text *text)
{
    static const int LAST[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    uint32_t month = values_draw(COUNT(LAST));
    uint32_t day = one_in(40) ? 29 + values_draw(4) : one_in(2) ? 1 + values_draw(28) : 0;

    if (one_in(4)) {
        add_one_of(text, "2016-12-31T23:59:60 2015-07-01T05:29:60 2016-12-31T23:59:59"
                         " 9999-12-31T23:59:59 0001-01-01T00:00:00 2000-02-29T00:00:00");
    } else {
        if (one_in(2))
            add_one_of(text, "0000 0001 1582 1600 1900 1969 1970 2000 2016 2024 2026 9999");
        else
            values_add(text, "%04u", 1 + values_draw(9999));
        values_add(text, "-%02u-%02u%c", month + 1, day > 0 ? day : (uint32_t)LAST[month],
                   one_in(8) ? 't' : 'T');
        values_add(text, "%02u:%02u:%02u", one_in(3) ? 23 : values_draw(24),
                   one_in(3) ? 59 : values_draw(60), values_draw(one_in(20) ? 62 : 60));
    }
    if (one_in(2))
        add_fraction(text);
    add_one_of(text,
               "Z Z Z z +00:00 -00:00 +01:00 -08:00 +05:30 +15:59 -15:59 -00:01 +00:59 +16:00");
}

static void add_number(struct text *text)
{
    if (one_in(2)) {
        add_one_of(text, "0 -0 0.0 -0.00 1 0e0 1e0 1E+5 1e-5 100e-2 0e99999 0e-16383 0e-16384 1.50"
                         " 9007199254740993 9223372036854775807 9223372036854775808"
                         " 18446744073709551615 18446744073709551616 -9223372036854775809"
                         " 123456789012345678901234567890.125 1e308 1.7976931348623157e308"
                         " 1.7976931348623159e308 -1e309 5e-324 4.9e-324 2e-324 1e-400"
                         " 2.2250738585072014e-308 0.1e-10 1e0000000005 1e16 -1.0e-1 01 1. NaN");
        return;
    }
    values_add(text, "%s%u", one_in(3) ? "-" : "", values_draw(10));
    if (text->bytes[text->length - 1] != '0' && one_in(2))
        add_digits(text, values_draw(one_in(8) ? 300 : 20));
    if (one_in(2)) {
        values_add(text, ".");
        add_digits(text, 1 + values_draw(one_in(8) ? 100 : 20));
    }
    if (one_in(3)) {
        add_one_of(text, "e E e- E- e+");
        values_add(text, "%u", values_draw(one_in(4) ? 400 : 30));
    }
}

/* What stands in a string: mostly what any reader takes, at times what only some do. */
static void add_characters(struct text *text, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (one_in(100))
            add_one_of(text,
                       "\\u0000 \\ud800 \\udc00\\ud800 \\ud83d\\u0 \x01 \t \n \\x \\u12 \\' \xc3");
        else
            add_one_of(text,
                       "a Z 0 { } [ ] , : ' / # evt_ payload \x7f \xc3\xa9 \xe2\x82\xac"
                       " \xe2\x80\xa8 \xef\xbf\xbf \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf \\\" \\\\ \\/"
                       " \\b \\f \\n \\r \\t \\u0001 \\u0022 \\u005c \\u007f \\u0085 \\u00E9"
                       " \\u2028 \\uFFFF \\ud83d\\ude00 \\uDBFF\\uDFFF");
    }
}

/* A word, spelled with escapes at times. */
static void add_word(struct text *text, const char *word)
{
    bool is_plain = !one_in(8);

    for (; *word != '\0'; word++)
        values_add(text, is_plain || one_in(2) ? "%c" : "\\u%04x", (unsigned)*word);
}

static void add_id(struct text *text)
{
    add_word(text, one_in(40) ? "evt-" : "evt_");
    if (one_in(2))
        values_add(text, "%u", values_draw(3));
    else if (one_in(10))
        add_digits(text, 245 + values_draw(10));
    else
        add_characters(text, 1 + values_draw(2));
}

static void add_scalar(struct text *text)
{
    switch (values_draw(5)) {
    case 0:
        add_one_of(text, "true false null");
        break;
    case 1:
    case 2:
        add_number(text);
        break;
    default:
        values_add(text, "\"");
        add_characters(text, values_draw(6));
        values_add(text, "\"");
    }
}

/* An object or array of scalars; it becomes deeper when one of them is replaced by another. */
static void add_list(struct text *text, bool is_object)
{
    uint32_t count = values_draw(4);

    values_add(text, "%c", is_object ? '{' : '[');
    for (uint32_t i = 0; i < count; i++) {
        values_add(text, "%s", i > 0 ? "," : "");
        if (is_object) {
            values_add_name(text, false);
            values_add(text, ":");
        }
        add_scalar(text);
    }
    values_add(text, "%c", is_object ? '}' : ']');
}

static void add_any(struct text *text)
{
    if (one_in(3))
        add_list(text, one_in(2));
    else
        add_scalar(text);
}

void values_add_value(struct text *text, enum value_kind kind)
{
    static const char *const TYPES[] = {"session", "activity", "tool", "agent", "summary", "error"};

    if (kind == VALUE_ANY || one_in(60)) {
        add_any(text);
        return;
    }
    if (kind == VALUE_PAYLOAD) {
        add_list(text, true);
        return;
    }
    values_add(text, "\"");
    if (kind == VALUE_ID)
        add_id(text);
    else if (kind == VALUE_SOURCE)
        add_word(text, one_in(40) ? "Macbook" : "macbook");
    else if (kind == VALUE_TIMESTAMP)
        add_timestamp(text);
    else
        add_word(text, one_in(40) ? "tools" : PICK(TYPES));
    values_add(text, "\"");
}

void values_add_name(struct text *text, bool is_top)
{
    values_add(text, "\"");
    if (is_top || one_in(8))
        add_word(text, PICK(MEMBERS).name);
    else if (one_in(2))
        add_some_of(text, 1, "abc");
    else
        add_characters(text, values_draw(4));
    values_add(text, "\"");
}

void values_add_member(struct text *text, bool is_top)
{
    const struct member *member = &PICK(MEMBERS);

    if (is_top) {
        values_add(text, "\"");
        add_word(text, member->name);
        values_add(text, "\"");
    } else {
        values_add_name(text, false);
    }
    values_add(text, ":");
    values_add_value(text, is_top ? member->kind : VALUE_ANY);
}

void values_add_event(struct text *text)
{
    uint32_t first = values_draw(COUNT(MEMBERS));

    values_add(text, "{");
    for (uint32_t i = 0; i < COUNT(MEMBERS); i++) {
        const struct member *member = &MEMBERS[(first + i) % COUNT(MEMBERS)];

        values_add(text, "%s\"%s\":", i > 0 ? "," : "", member->name);
        values_add_value(text, member->kind);
    }
    values_add(text, "}");
}

enum value_kind values_kind(const char *name, size_t length)
{
    for (size_t i = 0; i < COUNT(MEMBERS); i++) {
        if (length == strlen(MEMBERS[i].name) && memcmp(name, MEMBERS[i].name, length) == 0)
            return MEMBERS[i].kind;
    }
    return VALUE_ANY;
}
