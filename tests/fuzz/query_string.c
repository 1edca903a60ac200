/* The query string of GET /query. */
#include "http/query_string.h"
#include "fuzz.h"

/* Whether the next character is invalid UTF-8 or a control character; advances past it. */
static bool is_bad_character(const unsigned char **at, const unsigned char *end)
{
    static const uint32_t LEAST[] = {0, 0x80, 0x800, 0x10000};
    unsigned char lead = *(*at)++;
    int more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    uint32_t code = more == 0 ? lead : lead & (0x3fU >> more);

    if ((lead >= 0x80 && lead < 0xc0) || lead >= 0xf8 || end - *at < more)
        return true;
    for (int i = 0; i < more; i++) {
        if ((**at & 0xc0) != 0x80)
            return true;
        code = code << 6 | (*(*at)++ & 0x3f);
    }
    return code < LEAST[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ||
           code < 0x20 || (code >= 0x7f && code < 0xa0);
}

static bool is_name(const char *text, size_t length)
{
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *end = at + length;

    while (at < end) {
        if (is_bad_character(&at, end))
            return false;
    }
    return length <= QUERY_STRING_SOURCE_BYTES;
}

static bool is_same(const struct query_string *a, const struct query_string *b)
{
    return a->days == b->days && a->grouping == b->grouping &&
           a->source_length == b->source_length &&
           memcmp(a->source, b->source, a->source_length) == 0;
}

/* Joins two texts with a third between them. Caller frees. */
static char *join(const char *first, const char *between, const char *second)
{
    size_t size = strlen(first) + strlen(between) + strlen(second) + 1;
    char *joined = malloc(size);

    require(joined != NULL, "memory can be allocated");
    snprintf(joined, size, "%s%s%s", first, between, second);
    return joined;
}

/* Parameters written out, with every byte escaped, must read back as the same. */
static void check_written(const struct query_string *parameters)
{
    static const char *const GROUPINGS[] = {
        [QUERY_BY_SOURCE_AND_HOUR] = "",
        [QUERY_BY_HOUR] = "&group_by=hour",
        [QUERY_BY_SOURCE] = "&group_by=source",
    };
    char query[sizeof("days=30&group_by=source&source=") + QUERY_STRING_SOURCE_BYTES * 3];
    struct query_string again;
    int length = snprintf(query, sizeof(query), "days=%d%s", parameters->days,
                          GROUPINGS[parameters->grouping]);

    if (parameters->source_length > 0)
        length += snprintf(query + length, sizeof(query) - (size_t)length, "&source=");
    for (size_t i = 0; i < parameters->source_length; i++)
        length += snprintf(query + length, sizeof(query) - (size_t)length, "%%%02x",
                           (unsigned char)parameters->source[i]);
    require(query_string_parse(query, &again) == ERROR_NONE, "what was read can be written");
    require(is_same(parameters, &again), "what is written reads as the same");
}

static void check_accepted(const char *query, const struct query_string *parameters)
{
    char *twice = join(query, "&", query);
    struct query_string ignored;
    bool has_parameter = parameters->days == 30 || parameters->source_length > 0 ||
                         parameters->grouping != QUERY_BY_SOURCE_AND_HOUR;

    require(parameters->days == 7 || parameters->days == 30, "days is 7 or 30");
    require(is_name(parameters->source, parameters->source_length),
            "the source is text, and not too long");
    require(parameters->source[parameters->source_length] == '\0', "the source is terminated");
    require(!has_parameter || query_string_parse(twice, &ignored) == ERROR_INVALID_QUERY,
            "a parameter stands there once");
    check_written(parameters);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *query = copy_text(data, size);
    char *longer = join("x=%26", "&", query);
    struct query_string parameters, other;
    enum error error = query_string_parse(query, &parameters);

    require(query_string_parse(longer, &other) == error, "an unknown parameter changes no verdict");
    require(error == ERROR_NONE || error == ERROR_INVALID_QUERY || error == ERROR_INVALID_DAYS ||
                error == ERROR_INVALID_SOURCE || error == ERROR_INVALID_GROUP_BY,
            "a refusal is one of four");
    if (error == ERROR_NONE) {
        require(is_same(&parameters, &other), "an unknown parameter changes nothing");
        check_accepted(query, &parameters);
    }
    free(longer);
    free(query);
    return 0;
}
