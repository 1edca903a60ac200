#include "event/skim.h"

#include <string.h>

enum { DEPTH_MOST = 31 }; /* below the event itself */

enum member { ID, SOURCE, TIMESTAMP, EVENT_TYPE, TYPE, PAYLOAD, MEMBERS };

static const char *const NAMES[MEMBERS] = {
    [ID] = "id",     [SOURCE] = "source",   [TIMESTAMP] = "timestamp", [EVENT_TYPE] = "eventType",
    [TYPE] = "type", [PAYLOAD] = "payload",
};

struct skim {
    const char *at;
    const char *end;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(struct skim *skim)
{
    while (skim->at < skim->end && is_space(*skim->at))
        skim->at++;
}

/* Passes one byte and the white space around it; false where another stands. */
static bool skip_byte(struct skim *skim, char byte)
{
    skip_space(skim);
    if (skim->at == skim->end || *skim->at != byte)
        return false;
    skim->at++;
    skip_space(skim);
    return true;
}

/* The quote that ends a string with escapes; NULL where there is none. */
static const char *find_end(const char *text, const char *end)
{
    for (const char *at = text; at < end; at++) {
        if (*at == '"')
            return at;
        at += *at == '\\';
    }
    return NULL;
}

/* Passes a string and gives what is between its quotes, without text where there is an escape. */
static bool skip_string(struct skim *skim, struct event_text *string)
{
    const char *text;
    const char *quote;
    bool has_escape;

    if (skim->at == skim->end || *skim->at != '"')
        return false;
    text = skim->at + 1;
    quote = memchr(text, '"', (size_t)(skim->end - text));
    has_escape = quote != NULL && memchr(text, '\\', (size_t)(quote - text)) != NULL;
    if (has_escape)
        quote = find_end(text, skim->end);
    if (quote == NULL)
        return false;
    *string = (struct event_text){has_escape ? NULL : text, (size_t)(quote - text)};
    skim->at = quote + 1;
    return true;
}

/* Passes a number or a literal, at which the splitter has looked. */
static bool skip_word(struct skim *skim)
{
    const char *text = skim->at;

    while (skim->at < skim->end && !is_space(*skim->at) && *skim->at != ',' && *skim->at != ':' &&
           *skim->at != '"' && *skim->at != '{' && *skim->at != '}' && *skim->at != '[' &&
           *skim->at != ']')
        skim->at++;
    return skim->at > text;
}

/* Passes a name and its colon. */
static bool skip_name(struct skim *skim, struct event_text *name)
{
    return skip_string(skim, name) && skip_byte(skim, ':');
}

static bool skip_scalar(struct skim *skim)
{
    struct event_text ignored;

    if (skim->at < skim->end && *skim->at == '"')
        return skip_string(skim, &ignored);
    return skip_word(skim);
}

/* Goes on to the next value of an object or array, past its name if it has one. */
static bool skip_to_value(struct skim *skim, char closing)
{
    struct event_text ignored;

    return closing == ']' || skip_name(skim, &ignored);
}

/* Passes a value and all that is in it. */
static bool skip_value(struct skim *skim)
{
    char closing[DEPTH_MOST]; /* what ends the objects and arrays that are open */
    size_t depth = 0;

    for (;;) {
        bool is_object = skip_byte(skim, '{');

        if (is_object || skip_byte(skim, '[')) {
            if (depth == DEPTH_MOST)
                return false;
            closing[depth++] = is_object ? '}' : ']';
            if (skim->at < skim->end && *skim->at != closing[depth - 1]) {
                if (!skip_to_value(skim, closing[depth - 1]))
                    return false;
                continue;
            }
        } else if (!skip_scalar(skim)) {
            return false;
        }
        while (depth > 0 && skip_byte(skim, closing[depth - 1]))
            depth--;
        if (depth == 0)
            return true;
        if (!skip_byte(skim, ',') || !skip_to_value(skim, closing[depth - 1]))
            return false;
    }
}

/* Keeps the value at hand if it is one of those looked for; false where it is none for a skim. */
static bool read_member(struct skim *skim, const struct event_text *name,
                        struct event_text values[static MEMBERS])
{
    for (enum member member = ID; member < MEMBERS; member++) {
        struct event_text *value = &values[member];

        if (!event_text_equals(name, NAMES[member], strlen(NAMES[member])))
            continue;
        if (value->text != NULL)
            return false;
        if (member != PAYLOAD)
            return skip_string(skim, value) && value->text != NULL;
        value->text = skim->at;
        return *skim->at == '{' && skip_value(skim);
    }
    return skip_value(skim);
}

bool skim_event(const struct splitter_element *text, struct event *event)
{
    struct skim skim = {text->text, text->text + text->length};
    struct event_text values[MEMBERS] = {{NULL, 0}};

    if (text->is_lax || !skip_byte(&skim, '{'))
        return false;
    do {
        struct event_text name;

        if (!skip_name(&skim, &name) || name.text == NULL || !read_member(&skim, &name, values))
            return false;
    } while (skip_byte(&skim, ','));
    if (!skip_byte(&skim, '}') || skim.at != skim.end)
        return false;

    *event = (struct event){
        .id = values[ID],
        .source = values[SOURCE],
        .timestamp = values[TIMESTAMP],
        .type = values[values[EVENT_TYPE].text != NULL ? EVENT_TYPE : TYPE],
        .has_payload = values[PAYLOAD].text != NULL,
    };
    return true;
}
