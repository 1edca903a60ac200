#include "mutator.h"

#include "fuzz.h"
#include "values.h"

/* One place of a body: a name or value, or a bracket, and then what stands before or behind it. */
struct place {
    size_t at;
    size_t length;
    size_t depth; /* 1 in the batch, 2 in an event */
    enum value_kind kind;
    char bracket; /* NUL for none */
};

/* Walks over a body that is JSON or nearly so, and draws one of its places. */
struct walk {
    const char *body;
    size_t length;
    size_t at;
    size_t depth;
    enum value_kind kind; /* of the member whose value comes next */
    uint32_t seen;
    struct place place;
};

/* Each place has the same chance to be the one left in the end. */
static void offer(struct walk *walk, struct place place)
{
    if (values_draw(++walk->seen) == 0)
        walk->place = place;
}

static size_t pass_string(const struct walk *walk)
{
    size_t at = walk->at + 1;

    while (at < walk->length && walk->body[at] != '"')
        at += walk->body[at] == '\\' ? 2 : 1;
    return at < walk->length ? at + 1 : walk->length;
}

static size_t pass_word(const struct walk *walk)
{
    static const char BEHIND[] = " \t\r\n,:{}[]\"";
    size_t at = walk->at + 1;

    while (at < walk->length && memchr(BEHIND, walk->body[at], strlen(BEHIND)) == NULL)
        at++;
    return at;
}

static void visit_scalar(struct walk *walk)
{
    size_t end = walk->body[walk->at] == '"' ? pass_string(walk) : pass_word(walk);
    bool is_name = end < walk->length && walk->body[end] == ':';
    struct place place = {.at = walk->at, .length = end - walk->at, .depth = walk->depth};

    if (is_name)
        place.kind = VALUE_NAME;
    else if (walk->depth == 2)
        place.kind = walk->kind;
    offer(walk, place);
    if (is_name && end - walk->at > 2)
        walk->kind = values_kind(walk->body + walk->at + 1, end - walk->at - 2);
    walk->at = end;
}

static void visit_bracket(struct walk *walk, char c)
{
    bool is_open = c == '{' || c == '[';

    if (is_open)
        walk->depth++;
    offer(walk, (struct place){.at = walk->at + is_open, .depth = walk->depth, .bracket = c});
    if (!is_open && walk->depth > 0)
        walk->depth--;
    walk->at++;
}

static struct place draw_place(const char *body, size_t length)
{
    struct walk walk = {.body = body, .length = length};

    while (walk.at < length) {
        char c = body[walk.at];

        if (c == '{' || c == '[' || c == '}' || c == ']')
            visit_bracket(&walk, c);
        else if (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\r' || c == '\n')
            walk.at++;
        else
            visit_scalar(&walk);
    }
    return walk.place;
}

/* A further member or element at a bracket, with the comma between it and its neighbour. */
static void add_further(struct text *text, const char *body, size_t size, const struct place *place)
{
    bool is_object = place->bracket == '{' || place->bracket == '}';
    bool is_open = place->bracket == '{' || place->bracket == '[';
    char neighbour = '\0';

    if (is_open && place->at < size)
        neighbour = body[place->at];
    else if (!is_open && place->at > 0)
        neighbour = body[place->at - 1];
    if (!is_open && neighbour != '{' && neighbour != '[')
        values_add(text, ",");
    if (is_object)
        values_add_member(text, place->depth == 2);
    else if (place->depth == 1)
        values_add_event(text);
    else
        values_add_value(text, VALUE_ANY);
    if (is_open && neighbour != '}' && neighbour != ']')
        values_add(text, ",");
}

/* Puts a text in the place; returns the new size, or the old one where it doesn't fit. */
static size_t replace(uint8_t *data, size_t size, size_t max_size, const struct place *place,
                      const struct text *text)
{
    size_t behind = place->at + place->length;

    if (size - place->length + text->length > max_size)
        return size;
    memmove(data + place->at + text->length, data + behind, size - behind);
    memcpy(data + place->at, text->bytes, text->length);
    return size - place->length + text->length;
}

size_t mutator_change(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    const char *body = (const char *)data;
    struct text text = {.length = 0};
    struct place place;

    values_seed(seed);
    if (values_draw(16) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    place = draw_place(body, size);
    if (size == 0 || values_draw(64) == 0) {
        place = (struct place){.length = size};
        values_add(&text, "[");
        values_add_event(&text);
        values_add(&text, "]");
    } else if (place.bracket != '\0') {
        add_further(&text, body, size, &place);
    } else if (values_draw(16) == 0) {
        place.length = 0;
        values_add(&text, "%c", " \t\r\n"[values_draw(4)]);
    } else if (place.kind == VALUE_NAME) {
        values_add_name(&text, place.depth == 2);
    } else {
        values_add_value(&text, place.kind);
    }
    return replace(data, size, max_size, &place, &text);
}
