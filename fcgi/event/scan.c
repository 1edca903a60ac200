#include "event/scan.h"

#include <math.h>
#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Without an exponent, only a longer number can be beyond a double's range. */
    PLAIN_NUMBER_BYTES = 300,

    /* PostgreSQL's numeric has NUMERIC_DSCALE_MAX, and exponents below INT_MAX / 2. */
    MAX_FRACTION_DIGITS = 16383,
    MAX_EXPONENT = 1000000000,

    HEX_DIGITS = 4,
    NO_CODE_UNIT = -1,
};

/* The tokens of JSON, as bits of a set. */
enum { VALUE = 1, NAME = 2, COLON = 4, COMMA = 8, CLOSE = 16 };

/* In the order of enum scan_member. */
static const char *const NAMES[SCAN_MEMBERS] = {"id",        "source", "timestamp",
                                                "eventType", "type",   "payload"};

/* The state of the walk over one event. */
struct walk {
    const char *at;
    const char *end; /* of the body */
    struct scan_event *event;
    unsigned expected; /* the tokens that the grammar allows next */
    size_t depth;
    uint64_t objects;          /* a bit for each open level, the innermost lowest; 1: an object */
    struct event_text *member; /* takes the next value at depth 1; NULL: no rule looks at it */
    const char *value;         /* where the last value at depth 1 begins */
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word_byte(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' ||
           c == '-' || c == '.';
}

/* The UTF-16 code unit of a \uXXXX. Does not read past a NUL. */
static int code_unit(const char *text)
{
    unsigned char bytes[2];

    if (text[0] != '\\' || text[1] != 'u' || strnlen(text + 2, HEX_DIGITS) != HEX_DIGITS ||
        sodium_hex2bin(bytes, sizeof(bytes), text + 2, HEX_DIGITS, NULL, NULL, NULL) != 0)
        return NO_CODE_UNIT;
    return bytes[0] * 256 + bytes[1];
}

static void skip_escape(struct walk *walk)
{
    int unit = code_unit(walk->at);
    int low;

    if (unit == NO_CODE_UNIT) {
        if (walk->at[1] != '\0' && strchr("\"\\/bfnrt", walk->at[1]) != NULL) {
            walk->at += 2;
        } else {
            walk->at++; /* a control character or the end of the body may follow */
            walk->event->is_json = false;
        }
        return;
    }
    walk->at += 2 + HEX_DIGITS;
    if (unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        walk->event->is_storable = false;
    if (unit < 0xd800 || unit > 0xdbff)
        return;
    low = code_unit(walk->at);
    if (low >= 0xdc00 && low <= 0xdfff)
        walk->at += 2 + HEX_DIGITS;
    else
        walk->event->is_storable = false;
}

/* Whether eight bytes hold no quote, backslash or control character. */
static bool are_plain(const char *text)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t bytes, found;

    memcpy(&bytes, text, sizeof(bytes));
    /*
     * Subtracting n sets the high bit of an ASCII byte below n. A borrow changes
     * the next byte only after such a byte, when the answer is known.
     */
    found = (bytes - ones * ' ') | ((bytes ^ ones * '"') - ones) | ((bytes ^ ones * '\\') - ones);
    return (found & ~bytes & ones << 7) == 0;
}

static bool is_plain(char c)
{
    return (unsigned char)c >= ' ' && c != '"' && c != '\\';
}

/* Skips a string, from its opening quote on; false where it has no end. */
static bool skip_string(struct walk *walk)
{
    walk->at++;
    for (;;) {
        while (walk->end - walk->at >= 8 && are_plain(walk->at))
            walk->at += 8;
        while (walk->at < walk->end && is_plain(*walk->at))
            walk->at++;
        if (walk->at == walk->end)
            return false;
        if (*walk->at == '\\') {
            skip_escape(walk);
            continue;
        }
        walk->at++;
        if (walk->at[-1] == '"')
            return true;
        walk->event->has_control = true;
        walk->event->is_storable = false;
        if (walk->at[-1] == '\0')
            walk->event->is_json = false;
    }
}

static const char *skip_digits(const char *text)
{
    while (is_digit(*text))
        text++;
    return text;
}

/* Skips an exponent, if there is one; NULL where it has no digits. */
static const char *skip_exponent(const char *at, long *exponent)
{
    char *end;

    *exponent = 0;
    if (*at != 'e' && *at != 'E')
        return at;
    at++;
    if (!is_digit(at[*at == '+' || *at == '-']))
        return NULL;
    *exponent = strtol(at, &end, 10); /* LONG_MAX or LONG_MIN where it is beyond them */
    return end;
}

/* Whether a double holds a number: it is not too large, nor so small that it becomes 0. */
static bool is_in_range(const char *text, size_t mantissa_length)
{
    double value = strtod(text, NULL);

    return isfinite(value) && (value != 0.0 || strspn(text, "-.0") >= mantissa_length);
}

/* Judges a number (RFC 8259, section 6), or one like 01, 1. or -.5; false for any other word. */
static bool judge_number(struct scan_event *event, const char *text, const char *end)
{
    const char *integer = text + (*text == '-');
    const char *point = skip_digits(integer);
    const char *fraction = point + (*point == '.');
    const char *mantissa_end = skip_digits(fraction);
    ptrdiff_t integer_digits = point - integer;
    ptrdiff_t fraction_digits = mantissa_end - fraction;
    bool is_strict = integer_digits > 0 && (integer_digits == 1 || *integer != '0') &&
                     (*point != '.' || fraction_digits > 0);
    bool is_short;
    long exponent;

    if (*text == '.' || integer_digits + fraction_digits == 0 ||
        skip_exponent(mantissa_end, &exponent) != end)
        return false;
    is_short = exponent == 0 && end - text <= PLAIN_NUMBER_BYTES;
    if (!is_strict || exponent >= MAX_EXPONENT ||
        exponent < fraction_digits - MAX_FRACTION_DIGITS ||
        !(is_short || is_in_range(text, (size_t)(mantissa_end - text))))
        event->is_storable = false;
    return true;
}

/* Judges what is neither a string nor punctuation. */
static void judge_word(struct scan_event *event, const char *text, const char *end)
{
    static const struct {
        const char *text;
        bool is_storable;
    } LITERALS[] = {{"true", true}, {"false", true},     {"null", true},
                    {"NaN", false}, {"Infinity", false}, {"-Infinity", false}};
    const struct event_text word = {text, (size_t)(end - text)};

    if (judge_number(event, text, end))
        return;
    for (size_t i = 0; i < sizeof(LITERALS) / sizeof(LITERALS[0]); i++) {
        if (event_text_equals(&word, LITERALS[i].text, strlen(LITERALS[i].text))) {
            if (!LITERALS[i].is_storable)
                event->is_storable = false;
            return;
        }
    }
    event->is_json = false;
}

/* Whether a string is this name; text follows its opening quote. */
static bool is_named(const char *text, const char *name)
{
    for (; *name != '\0'; name++) {
        if (*text == *name)
            text++;
        else if (code_unit(text) == *name)
            text += 2 + HEX_DIGITS;
        else
            return false;
    }
    return *text == '"';
}

static struct event_text *find_member(struct scan_event *event, const char *name)
{
    for (size_t member = 0; member < SCAN_MEMBERS; member++) {
        if (is_named(name + 1, NAMES[member]))
            return &event->members[member];
    }
    return NULL;
}

/* An event with an unexpected token is not JSON. */
static void expect(struct walk *walk, unsigned token)
{
    if ((walk->expected & token) == 0)
        walk->event->is_json = false;
}

static void begin_value(struct walk *walk)
{
    expect(walk, VALUE);
    if (walk->depth == 1)
        walk->value = walk->at;
}

static void end_value(struct walk *walk)
{
    if (walk->depth == 1 && walk->member != NULL) {
        *walk->member = (struct event_text){walk->value, (size_t)(walk->at - walk->value)};
        walk->member = NULL;
    }
    walk->expected = walk->depth > 0 ? COMMA | CLOSE : 0;
}

/* A string, which is a name or a value; false where it has no end. */
static bool walk_string(struct walk *walk)
{
    bool has_end;

    if ((walk->expected & NAME) != 0) {
        if (walk->depth == 1)
            walk->member = find_member(walk->event, walk->at);
        walk->expected = COLON;
        return skip_string(walk);
    }
    begin_value(walk);
    has_end = skip_string(walk);
    end_value(walk);
    return has_end;
}

/* A number, a literal, or a byte that is not JSON. */
static void walk_word(struct walk *walk)
{
    const char *text = walk->at;

    begin_value(walk);
    while (walk->at < walk->end && is_word_byte(*walk->at))
        walk->at++;
    judge_word(walk->event, text, walk->at);
    if (walk->at == text)
        walk->at++;
    end_value(walk);
}

static void walk_open(struct walk *walk)
{
    bool is_object = *walk->at == '{';

    begin_value(walk);
    walk->at++;
    walk->objects = walk->objects << 1 | is_object;
    walk->event->nodes++;
    if (++walk->depth > walk->event->depth)
        walk->event->depth = walk->depth;
    walk->expected = (is_object ? NAME : VALUE) | CLOSE;
}

static void walk_close(struct walk *walk)
{
    expect(walk, CLOSE);
    if ((walk->objects & 1) != (*walk->at == '}'))
        walk->event->is_json = false;
    walk->at++;
    walk->objects >>= 1;
    walk->depth--;
    end_value(walk);
}

/* One event, up to the comma or bracket behind it; false where there is no event or no end. */
static bool walk_event(struct walk *walk)
{
    struct scan_event *event = walk->event;
    const char *last = walk->at;

    while (walk->at < walk->end) {
        char c = *walk->at;

        if (walk->depth == 0 && (c == ',' || c == ']')) {
            event->length = (size_t)(last - event->text);
            return event->length > 0;
        }
        if (is_space(c)) {
            walk->at++;
            continue;
        }
        if (c == '"') {
            if (!walk_string(walk))
                return false;
        } else if (c == '{' || c == '[') {
            walk_open(walk);
        } else if (c == '}' || c == ']') {
            if (walk->depth == 0)
                return false;
            walk_close(walk);
        } else if (c == ',') {
            expect(walk, COMMA);
            walk->expected = walk->objects & 1 ? NAME : VALUE;
            walk->at++;
        } else if (c == ':') {
            expect(walk, COLON);
            walk->expected = VALUE;
            walk->at++;
        } else {
            walk_word(walk);
        }
        last = walk->at;
    }
    return false;
}

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && is_space(*scan->at))
        scan->at++;
}

void scan_begin(struct scan *scan, const char *body, size_t length)
{
    *scan = (struct scan){.at = body, .end = body + length, .is_first = true};
}

static enum scan_step scan_event(struct scan *scan, struct scan_event *event)
{
    struct walk walk = {.at = scan->at, .end = scan->end, .event = event, .expected = VALUE};
    bool is_found;

    *event = (struct scan_event){.text = scan->at, .is_json = true, .is_storable = true};
    is_found = walk_event(&walk);
    scan->at = walk.at;
    return is_found ? SCAN_EVENT : SCAN_BROKEN;
}

enum scan_step scan_next(struct scan *scan, struct scan_event *event)
{
    bool is_first = scan->is_first;

    if (is_first) {
        skip_space(scan);
        if (*scan->at != '[')
            return SCAN_BROKEN;
        scan->is_first = false;
    }
    /* Now at the bracket or comma before an event, or at the bracket behind the last. */
    if (*scan->at++ != ']') {
        skip_space(scan);
        if (!is_first || *scan->at != ']')
            return scan_event(scan, event);
        scan->at++;
    }
    skip_space(scan);
    return scan->at == scan->end ? SCAN_END : SCAN_BROKEN;
}
