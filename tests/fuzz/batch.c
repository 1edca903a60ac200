/* A body: where its events are, and whether the scanner and json-c agree about each of them. */
#include "fuzz.h"
#include "mutator.h"

/* The file itself, for its static functions, which read an event. */
#include "event/batch.c" // NOLINT(bugprone-suspicious-include)

static const struct event_text SOURCE = {"macbook", 7};

/* JSON's white space, written out once more. */
static const char *pass_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static const char *pass_byte(const char *at, const char *end, char byte)
{
    at = pass_space(at, end);
    require(at < end && *at == byte, "brackets and commas stand around the events");
    return pass_space(at + 1, end);
}

/* The events, in their order, with brackets, commas and white space, must be the whole body. */
static void check_outline(const struct batch *batch, const char *body, size_t length)
{
    const char *end = body + length;
    const char *at = pass_byte(body, end, '[');

    require(batch->count >= 1 && batch->count <= BATCH_EVENTS, "a batch has 1 to 1000 events");
    for (size_t i = 0; i < batch->count; i++) {
        const struct scan_event *event = &batch->events[i];

        if (i > 0)
            at = pass_byte(at, end, ',');
        require(event->text == at, "an event begins where the one before it has ended");
        require(event->length > 0 && event->length <= (size_t)(end - at), "an event has an end");
        require(event->depth <= event->nodes, "each level is an object or array");
        require(!event->is_storable || !event->has_control, "control characters are not storable");
        at += event->length;
    }
    require(pass_byte(at, end, ']') == end, "nothing follows the array");
}

static bool is_same_text(const struct event_text *a, const struct event_text *b)
{
    return a->text == NULL ? b->text == NULL : event_text_equals(b, a->text, a->length);
}

/* A member as json-c reads it. */
static struct event_text parsed_string(struct json_object *object, const char *name)
{
    struct json_object *value;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_string))
        return (struct event_text){NULL, 0};
    return (struct event_text){json_object_get_string(value),
                               (size_t)json_object_get_string_len(value)};
}

/* json-c must find the members that the scanner found, with the same values. */
static void check_members(const struct scan_event *scanned, struct json_object *object)
{
    struct reader reader = {.tokener = NULL};
    struct event event;
    struct event_text text = parsed_string(object, "id");
    struct json_object *value;
    bool has_event_type = json_object_object_get_ex(object, "eventType", &value);

    require(read_event(&reader, scanned, &event), "there is memory");
    require(is_same_text(&event.id, &text), "both read the same id");
    text = parsed_string(object, "source");
    require(is_same_text(&event.source, &text), "both read the same source");
    text = parsed_string(object, "timestamp");
    require(is_same_text(&event.timestamp, &text), "both read the same time");
    text = parsed_string(object, has_event_type ? "eventType" : "type");
    require(is_same_text(&event.type, &text), "both read the same type");
    require(event.has_payload ==
                (json_object_object_get_ex(object, "payload", &value) &&
                 json_object_is_type(value, json_type_object) && scanned->is_storable),
            "both see a payload, or none");
    free_reader(&reader);
}

static bool contains(const struct scan_event *event, const char *text)
{
    return memmem(event->text, event->length, text, strlen(text)) != NULL;
}

/* Parses an event whole; false where it is not JSON. null is a NULL object. */
static bool parse(struct json_tokener *tokener, const struct scan_event *event,
                  struct json_object **object)
{
    enum json_tokener_error result;

    *object = json_tokener_parse_ex(tokener, event->text, (int)event->length);
    result = json_tokener_get_error(tokener);
    if (result == json_tokener_success)
        return json_tokener_get_parse_end(tokener) == event->length;
    /* A number or literal by itself could go on: json-c ends it at a NUL. */
    if (result != json_tokener_continue || *event->text == '{' || *event->text == '[')
        return false;
    *object = json_tokener_parse_ex(tokener, "", 1);
    return json_tokener_get_error(tokener) == json_tokener_success;
}

/*
 * json-c must read what is JSON to the scanner, and in its strict mode nothing else; but it takes
 * names in single quotes, and ends a name at U+0000.
 */
static void check_reading(const struct scan_event *event)
{
    struct json_tokener *tokener = json_tokener_new_ex(BATCH_EVENT_DEPTH + 1);
    struct json_object *object;
    bool is_read;

    require(tokener != NULL, "there is memory");
    json_tokener_set_flags(tokener, event->is_json ? 0 : JSON_TOKENER_STRICT);
    is_read = parse(tokener, event, &object);
    if (event->is_json)
        require(is_read, "what is JSON to the scanner is JSON to json-c");
    else
        require(!is_read || contains(event, "'"), "what is not JSON is not JSON to json-c");
    if (event->is_json && *event->text == '{' && !contains(event, "\\u0000"))
        check_members(event, object);
    json_object_put(object);
    json_tokener_free(tokener);
}

/* The verdict on an event that is a batch by itself. */
static enum error judge_alone(const struct scan_event *text)
{
    static struct batch alone;
    char *body = malloc(text->length + 3);
    enum error error;

    require(body != NULL, "there is memory");
    body[0] = '[';
    memcpy(body + 1, text->text, text->length);
    memcpy(body + 1 + text->length, "]", 2);
    error = batch_split(&alone, body, text->length + 2);
    require(error == ERROR_NONE && alone.count == 1, "an event alone is a batch");
    error = batch_check(&alone, SOURCE.text, SOURCE.length);
    free(body);
    return error;
}

/* What batch_check said must be what each event gets alone. */
static void check_verdict(const struct batch *batch, enum error error)
{
    enum error expected = ERROR_NONE;
    size_t rejected = 0;

    for (size_t i = 0; i < batch->count && expected != ERROR_INVALID_REQUEST; i++) {
        enum error verdict = judge_alone(&batch->events[i]);

        require(verdict != ERROR_NONE || (batch->events[i].is_json && batch->events[i].is_storable),
                "what is accepted is JSON that jsonb stores");
        if (verdict == ERROR_INVALID_REQUEST) {
            expected = verdict;
        } else if (verdict != ERROR_NONE) {
            require(rejected < batch->rejected_count && batch->rejected[rejected].index == i &&
                        batch->rejected[rejected].error == verdict,
                    "a bad event is listed, in its place");
            expected = rejected++ == 0 ? verdict : expected;
        }
    }
    require(error == expected, "the first bad event decides, unless something is not JSON");
    require(rejected == batch->rejected_count, "no other event is listed");
}

/* Half of the changes keep the grammar, half don't. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    return seed % 2 == 0 ? LLVMFuzzerMutate(data, size, max_size)
                         : mutator_change(data, size, max_size, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct batch batch;
    char *body = copy_text(data, size);
    enum error error = batch_split(&batch, body, size);

    require(error == ERROR_NONE || error == ERROR_INVALID_REQUEST || error == ERROR_EMPTY_BATCH ||
                error == ERROR_BATCH_TOO_LARGE,
            "a body that is refused whole is refused for one of three reasons");
    if (error == ERROR_NONE) {
        check_outline(&batch, body, size);
        for (size_t i = 0; i < batch.count; i++) {
            if (batch.events[i].depth <= BATCH_EVENT_DEPTH)
                check_reading(&batch.events[i]);
        }
        check_verdict(&batch, batch_check(&batch, SOURCE.text, SOURCE.length));
    }
    free(body);
    return 0;
}
