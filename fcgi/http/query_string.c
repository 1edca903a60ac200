#include "http/query_string.h"

#include "base/utf8.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

/* A decoded name or value. Text longer than any we accept is cut off; length is that of the whole.
 */
struct field {
    size_t length;
    unsigned char text[QUERY_STRING_SOURCE_BYTES + 1];
};

/* Decodes from text up to end; false for a broken percent escape. */
static bool decode(const char *text, const char *end, struct field *field)
{
    field->length = 0;
    while (text < end) {
        unsigned char c = (unsigned char)*text++;

        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            if (end - text < 2 || sodium_hex2bin(&c, 1, text, 2, NULL, NULL, NULL) != 0)
                return false;
            text += 2;
        }
        if (field->length < sizeof(field->text))
            field->text[field->length] = c;
        field->length++;
    }
    return true;
}

static bool equals(const struct field *field, const char *word)
{
    return field->length == strlen(word) && memcmp(field->text, word, field->length) == 0;
}

static enum error set_days(struct query_string *parameters, const struct field *value)
{
    if (equals(value, "7"))
        parameters->days = 7;
    else if (equals(value, "30"))
        parameters->days = 30;
    else
        return ERROR_INVALID_DAYS;
    return ERROR_NONE;
}

static enum error set_source(struct query_string *parameters, const struct field *value)
{
    if (value->length == 0 || value->length > QUERY_STRING_SOURCE_BYTES ||
        !utf8_valid(value->text, value->length) || utf8_has_control(value->text, value->length))
        return ERROR_INVALID_SOURCE;
    memcpy(parameters->source, value->text, value->length);
    parameters->source[value->length] = '\0';
    parameters->source_length = value->length;
    return ERROR_NONE;
}

static enum error set_grouping(struct query_string *parameters, const struct field *value)
{
    if (equals(value, "hour"))
        parameters->grouping = QUERY_BY_HOUR;
    else if (equals(value, "source"))
        parameters->grouping = QUERY_BY_SOURCE;
    else
        return ERROR_INVALID_GROUP_BY;
    return ERROR_NONE;
}

enum error query_string_parse(const char *query, struct query_string *parameters)
{
    struct field name, days, source, group_by;
    bool has_days = false;
    bool has_source = false;
    bool has_group_by = false;
    enum error error = ERROR_NONE;

    parameters->days = 7;
    parameters->source_length = 0;
    parameters->source[0] = '\0';
    parameters->grouping = QUERY_BY_SOURCE_AND_HOUR;

    while (*query != '\0') {
        const char *end = query + strcspn(query, "&");
        const char *name_end = memchr(query, '=', (size_t)(end - query));
        const char *value = name_end != NULL ? name_end + 1 : end;
        struct field other;
        struct field *into = &other;
        bool *seen = NULL;

        if (!decode(query, name_end != NULL ? name_end : end, &name))
            return ERROR_INVALID_QUERY;
        if (equals(&name, "days")) {
            into = &days;
            seen = &has_days;
        } else if (equals(&name, "source")) {
            into = &source;
            seen = &has_source;
        } else if (equals(&name, "group_by")) {
            into = &group_by;
            seen = &has_group_by;
        }
        if ((seen != NULL && *seen) || !decode(value, end, into))
            return ERROR_INVALID_QUERY;
        if (seen != NULL)
            *seen = true;
        query = *end == '&' ? end + 1 : end;
    }

    if (has_days)
        error = set_days(parameters, &days);
    if (error == ERROR_NONE && has_source)
        error = set_source(parameters, &source);
    if (error == ERROR_NONE && has_group_by)
        error = set_grouping(parameters, &group_by);
    return error;
}

bool query_string_equal(const struct query_string *a, const struct query_string *b)
{
    return a->days == b->days && a->grouping == b->grouping &&
           a->source_length == b->source_length &&
           memcmp(a->source, b->source, a->source_length) == 0;
}
