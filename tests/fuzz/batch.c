/* A body: where its events stand, and that both ways of reading one come to the same. */
#include "fuzz.h"
#include "mutator.h"

/* The file itself, for what it keeps to itself: the ways of reading an event. */
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
        const struct splitter_element *event = &batch->events[i];

        if (i > 0)
            at = pass_byte(at, end, ',');
        require(event->text == at, "an event begins where the one before it has ended");
        require(event->length > 0 && event->length <= (size_t)(end - at), "an event has an end");
        require(event->depth <= event->nodes, "each level is an object or array");
        require(event->is_lax || !event->has_control, "control characters are lax");
        at += event->length;
    }
    require(pass_byte(at, end, ']') == end, "nothing follows the array");
}

static bool is_same_text(const struct event_text *a, const struct event_text *b)
{
    return a->text == NULL ? b->text == NULL : event_text_equals(b, a->text, a->length);
}

/* Where an event can be skimmed, json-c must find the same members. */
static void check_readings(const struct splitter_element *text)
{
    struct json_tokener *tokener = json_tokener_new_ex(BATCH_EVENT_DEPTH + 1);
    struct event skimmed, parsed;
    struct json_object *object = NULL;

    require(tokener != NULL, "there is memory");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    if (skim_event(text, &skimmed)) {
        require(!text->is_lax, "what is lax is not skimmed");
        require(parse(tokener, text, &object), "what is skimmed is JSON to json-c");
        require(json_object_is_type(object, json_type_object), "what is skimmed is an object");
        parsed = read_event(object, text);
        require(is_same_text(&skimmed.id, &parsed.id), "both read the same id");
        require(is_same_text(&skimmed.source, &parsed.source), "both read the same source");
        require(is_same_text(&skimmed.timestamp, &parsed.timestamp), "both read the same time");
        require(is_same_text(&skimmed.type, &parsed.type), "both read the same type");
        require(skimmed.has_payload == parsed.has_payload, "both see a payload, or none");
        require(event_check(&skimmed, &SOURCE) == check_parsed(text, &SOURCE),
                "the verdict is the same, skimmed or parsed");
    }
    json_object_put(object);
    json_tokener_free(tokener);
}

/* The verdict on an event that is a batch by itself. */
static enum error judge_alone(const struct splitter_element *text)
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

        require(verdict != ERROR_NONE || !batch->events[i].is_lax, "nothing lax is accepted");
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
        for (size_t i = 0; i < batch.count; i++)
            check_readings(&batch.events[i]);
        check_verdict(&batch, batch_check(&batch, SOURCE.text, SOURCE.length));
    }
    free(body);
    return 0;
}
