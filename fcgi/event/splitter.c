#include "event/splitter.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Without an exponent, only a longer number can be beyond a double's range. */
    PLAIN_NUMBER_BYTES = 300,

    /* What PostgreSQL's numeric has: NUMERIC_DSCALE_MAX, and an exponent below INT_MAX / 2. */
    FRACTION_DIGITS = 16383,
    EXPONENT = 1000000000,

    HEX_DIGITS = 4,
    NO_CODE_UNIT = -1,
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

static void skip_space(struct splitter *walk)
{
    while (walk->at < walk->end && is_space(*walk->at))
        walk->at++;
}

/* The UTF-16 code unit of a \uXXXX at text, which must end in a NUL. */
static int code_unit(const char *text)
{
    unsigned char bytes[2];

    if (text[0] != '\\' || text[1] != 'u' || strnlen(text + 2, HEX_DIGITS) != HEX_DIGITS ||
        sodium_hex2bin(bytes, sizeof(bytes), text + 2, HEX_DIGITS, NULL, NULL, NULL) != 0)
        return NO_CODE_UNIT;
    return bytes[0] * 256 + bytes[1];
}

/* Passes an escape sequence; false for one that is none or that jsonb can't store. */
static bool skip_escape(struct splitter *walk)
{
    int unit = code_unit(walk->at);

    if (unit == NO_CODE_UNIT) {
        bool is_known = walk->at[1] != '\0' && strchr("\"\\/bfnrt", walk->at[1]) != NULL;

        /* What can't be an escape is looked at once more, lest it be the end of the string. */
        walk->at += is_known ? 2 : 1;
        return is_known;
    }
    walk->at += 6;
    if (unit >= 0xd800 && unit <= 0xdbff) {
        int low = code_unit(walk->at);

        if (low < 0xdc00 || low > 0xdfff)
            return false;
        walk->at += 6;
        return true;
    }
    return unit != 0 && (unit < 0xdc00 || unit > 0xdfff);
}

/* Passes a string, from its opening quote on; false where it has no end. */
static bool skip_string(struct splitter *walk, struct splitter_element *element)
{
    walk->at++;
    while (walk->at < walk->end) {
        unsigned char c = (unsigned char)*walk->at;

        if (c == '\\') {
            if (!skip_escape(walk))
                element->is_lax = true;
            continue;
        }
        walk->at++;
        if (c == '"')
            return true;
        if (c < 0x20) {
            element->has_control = true;
            element->is_lax = true;
        }
    }
    return false;
}

static const char *skip_digits(const char *text)
{
    while (is_digit(*text))
        text++;
    return text;
}

/* The parts of a number of RFC 8259, section 6. */
struct number {
    const char *fraction; /* its digits */
    const char *mantissa_end;
    long exponent; /* cut off at EXPONENT either way */
};

/* Reads an exponent, from its e on, if there is one; NULL where it has no digits. */
static const char *read_exponent(const char *at, long *exponent)
{
    bool is_negative;
    const char *digits;

    *exponent = 0;
    if (*at != 'e' && *at != 'E')
        return at;
    at++;
    is_negative = *at == '-';
    at += *at == '+' || *at == '-';
    for (digits = at; is_digit(*at); at++) {
        if (*exponent < EXPONENT)
            *exponent = *exponent * 10 + (*at - '0');
    }
    if (*exponent > EXPONENT)
        *exponent = EXPONENT;
    if (is_negative)
        *exponent = -*exponent;
    return at > digits ? at : NULL;
}

/* Reads a word as a number; false where it is none. */
static bool read_number(const char *text, const char *end, struct number *number)
{
    const char *digits = text + (*text == '-');
    const char *at = skip_digits(digits);

    if (at == digits || (*digits == '0' && at - digits > 1))
        return false;
    number->fraction = at;
    if (*at == '.') {
        number->fraction = ++at;
        at = skip_digits(at);
        if (at == number->fraction)
            return false;
    }
    number->mantissa_end = at;
    return read_exponent(at, &number->exponent) == end;
}

/* Whether a double holds a number: not one too large, nor one other than 0 and too small. */
static bool is_in_range(const char *text, const char *end, const struct number *number)
{
    bool is_zero = true;
    double value;

    if (number->exponent == 0 && end - text <= PLAIN_NUMBER_BYTES)
        return true;
    for (const char *at = text; at < number->mantissa_end; at++) {
        if (*at >= '1' && *at <= '9')
            is_zero = false;
    }
    value = strtod(text, NULL);
    return isfinite(value) && (is_zero || value != 0.0);
}

/* Whether a word is a number that a double holds and PostgreSQL's numeric stores. */
static bool is_number(const char *text, const char *end)
{
    struct number number;

    return read_number(text, end, &number) && number.exponent < EXPONENT &&
           number.exponent > -EXPONENT &&
           number.mantissa_end - number.fraction - number.exponent <= FRACTION_DIGITS &&
           is_in_range(text, end, &number);
}

static bool is_literal(const char *text, const char *end)
{
    static const char *const LITERALS[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof(LITERALS) / sizeof(LITERALS[0]); i++) {
        if ((size_t)(end - text) == strlen(LITERALS[i]) &&
            memcmp(text, LITERALS[i], strlen(LITERALS[i])) == 0)
            return true;
    }
    return false;
}

/* Passes a number, a literal, or whatever else stands outside strings. */
static void skip_word(struct splitter *walk, struct splitter_element *element)
{
    const char *text = walk->at;

    while (walk->at < walk->end && is_word_byte(*walk->at))
        walk->at++;
    if (walk->at == text) {
        element->is_lax = true;
        walk->at++;
    } else if (!is_number(text, walk->at) && !is_literal(text, walk->at)) {
        element->is_lax = true;
    }
}

/* Passes one element, up to the comma or bracket behind it; false where there is none. */
static bool skip_element(struct splitter *walk, struct splitter_element *element)
{
    size_t depth = 0;
    const char *last = walk->at;

    *element = (struct splitter_element){.text = walk->at};
    while (walk->at < walk->end) {
        char c = *walk->at;

        if (depth == 0 && (c == ',' || c == ']')) {
            element->length = (size_t)(last - element->text);
            return element->length > 0;
        }
        if (is_space(c)) {
            walk->at++;
            continue;
        }
        if (c == '"') {
            if (!skip_string(walk, element))
                return false;
        } else if (c == '{' || c == '[') {
            if (++depth > element->depth)
                element->depth = depth;
            element->nodes++;
            walk->at++;
        } else if (c == '}' || c == ']') {
            if (depth-- == 0)
                return false;
            walk->at++;
        } else if (c == ',' || c == ':') {
            walk->at++;
        } else {
            skip_word(walk, element);
        }
        last = walk->at;
    }
    return false;
}

void splitter_begin(struct splitter *splitter, const char *body, size_t length)
{
    *splitter = (struct splitter){.at = body, .end = body + length, .is_first = true};
}

enum splitter_step splitter_next(struct splitter *splitter, struct splitter_element *element)
{
    if (splitter->is_first) {
        skip_space(splitter);
        if (splitter->at == splitter->end || *splitter->at != '[')
            return SPLITTER_BROKEN;
    }
    /* Now at the bracket or comma before an element, or at the bracket behind the last. */
    if (splitter->is_first || *splitter->at == ',') {
        bool may_be_empty = splitter->is_first;

        splitter->is_first = false;
        splitter->at++;
        skip_space(splitter);
        if (!may_be_empty || splitter->at == splitter->end || *splitter->at != ']')
            return skip_element(splitter, element) ? SPLITTER_ELEMENT : SPLITTER_BROKEN;
    }
    splitter->at++;
    skip_space(splitter);
    return splitter->at == splitter->end ? SPLITTER_END : SPLITTER_BROKEN;
}
