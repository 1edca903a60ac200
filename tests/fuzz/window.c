/* The query string of GET /query. */
#include "window.h"
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
    return length <= WINDOW_SOURCE_BYTES;
}

static bool is_same(const struct window *a, const struct window *b)
{
    return a->days == b->days && a->source_length == b->source_length &&
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

/* A window written out, with every byte escaped, must read as the same. */
static void check_written(const struct window *window)
{
    char query[sizeof("days=30&source=") + WINDOW_SOURCE_BYTES * 3];
    struct window again;
    int length = snprintf(query, sizeof(query), "days=%d", window->days);

    if (window->source_length > 0)
        length += snprintf(query + length, sizeof(query) - (size_t)length, "&source=");
    for (size_t i = 0; i < window->source_length; i++)
        length += snprintf(query + length, sizeof(query) - (size_t)length, "%%%02x",
                           (unsigned char)window->source[i]);
    require(window_parse(query, &again) == ERROR_NONE, "what was read can be written");
    require(is_same(window, &again), "what is written reads as the same");
}

static void check_accepted(const char *query, const struct window *window)
{
    char *twice = join(query, "&", query);
    struct window ignored;
    bool has_parameter = window->days == 30 || window->source_length > 0;

    require(window->days == 7 || window->days == 30, "days is 7 or 30");
    require(is_name(window->source, window->source_length), "the source is text, and not too long");
    require(window->source[window->source_length] == '\0', "the source is terminated");
    require(!has_parameter || window_parse(twice, &ignored) == ERROR_INVALID_QUERY,
            "a parameter stands there once");
    check_written(window);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *query = copy_text(data, size);
    char *longer = join("x=%26", "&", query);
    struct window window, other;
    enum error error = window_parse(query, &window);

    require(window_parse(longer, &other) == error, "an unknown parameter changes no verdict");
    require(error == ERROR_NONE || error == ERROR_INVALID_QUERY || error == ERROR_INVALID_DAYS ||
                error == ERROR_INVALID_SOURCE,
            "a refusal is one of three");
    if (error == ERROR_NONE) {
        require(is_same(&window, &other), "an unknown parameter changes no window");
        check_accepted(query, &window);
    }
    free(longer);
    free(query);
    return 0;
}
