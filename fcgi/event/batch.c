#include "event/batch.h"

#include "base/utf8.h"
#include "event/event.h"
#include "event/skim.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <string.h>

enum error batch_split(struct batch *batch, const char *body, size_t length)
{
    struct splitter splitter;
    struct splitter_element beyond;
    enum splitter_step step;
    size_t nodes = 0;

    batch->count = 0;
    batch->rejected_count = 0;
    if (!utf8_valid((const unsigned char *)body, length))
        return ERROR_INVALID_REQUEST;

    splitter_begin(&splitter, body, length);
    for (;;) {
        bool fits = batch->count < BATCH_EVENTS;
        struct splitter_element *event = fits ? &batch->events[batch->count] : &beyond;

        step = splitter_next(&splitter, event);
        if (step != SPLITTER_ELEMENT)
            break;
        batch->count++;
        nodes += event->nodes;
    }
    if (step == SPLITTER_BROKEN)
        return ERROR_INVALID_REQUEST;
    if (batch->count == 0)
        return ERROR_EMPTY_BATCH;
    if (batch->count > BATCH_EVENTS || nodes > BATCH_NODES)
        return ERROR_BATCH_TOO_LARGE;
    return ERROR_NONE;
}

/* Parses one element whole; false where it is not JSON. null is a NULL event. */
static bool parse(struct json_tokener *tokener, const struct splitter_element *text,
                  struct json_object **event)
{
    enum json_tokener_error result;

    *event = json_tokener_parse_ex(tokener, text->text, (int)text->length);
    result = json_tokener_get_error(tokener);
    if (result == json_tokener_success)
        return json_tokener_get_parse_end(tokener) == text->length;
    /* A number by itself could go on: json-c ends it at a NUL. */
    if (result != json_tokener_continue || *text->text == '{' || *text->text == '[')
        return false;
    *event = json_tokener_parse_ex(tokener, "", 1);
    return json_tokener_get_error(tokener) == json_tokener_success;
}

/* A member that is a string; no text otherwise. */
static struct event_text string_member(struct json_object *object, const char *name)
{
    struct json_object *value;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_string))
        return (struct event_text){NULL, 0};
    return (struct event_text){json_object_get_string(value),
                               (size_t)json_object_get_string_len(value)};
}

/* What the rules look at in an event that was parsed; it points into the object. */
static struct event read_event(struct json_object *object, const struct splitter_element *text)
{
    struct json_object *ignored;
    struct json_object *payload;
    bool has_event_type = json_object_object_get_ex(object, "eventType", &ignored);

    return (struct event){
        .id = string_member(object, "id"),
        .source = string_member(object, "source"),
        .timestamp = string_member(object, "timestamp"),
        .type = string_member(object, has_event_type ? "eventType" : "type"),
        .has_payload = json_object_object_get_ex(object, "payload", &payload) &&
                       json_object_is_type(payload, json_type_object) && !text->is_lax,
    };
}

/*
 * Judges an event by all that json-c makes of it. Its tokener is new: json_tokener_reset (0.16)
 * would leave half a surrogate pair of one event to the next.
 */
static enum error check_parsed(const struct splitter_element *text, const struct event_text *source)
{
    struct json_tokener *tokener = json_tokener_new_ex(BATCH_EVENT_DEPTH + 1);
    struct json_object *object;
    enum error error = ERROR_INVALID_EVENT;

    if (tokener == NULL)
        return ERROR_INTERNAL;
    /* Without JSON_TOKENER_VALIDATE_UTF8: batch_split has looked at the whole body. */
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    if (!parse(tokener, text, &object)) {
        /* Of raw control characters in strings, json-c minds NUL alone. */
        error = text->has_control ? ERROR_INVALID_PAYLOAD : ERROR_INVALID_REQUEST;
    } else if (json_object_is_type(object, json_type_object)) {
        struct event event = read_event(object, text);

        error = event_check(&event, source);
    }
    json_object_put(object);
    json_tokener_free(tokener);
    return error;
}

static enum error check_one(const struct splitter_element *text, const struct event_text *source)
{
    struct event event;

    if (text->length > BATCH_EVENT_BYTES || text->depth > BATCH_EVENT_DEPTH)
        return ERROR_INVALID_EVENT;
    if (skim_event(text, &event))
        return event_check(&event, source);
    return check_parsed(text, source);
}

enum error batch_check(struct batch *batch, const char *source, size_t source_length)
{
    const struct event_text wanted = {source, source_length};

    for (size_t i = 0; i < batch->count; i++) {
        enum error verdict = check_one(&batch->events[i], &wanted);

        if (verdict == ERROR_INVALID_REQUEST || verdict == ERROR_INTERNAL)
            return verdict;
        if (verdict != ERROR_NONE)
            batch_reject(batch, i, verdict);
    }
    return batch->rejected_count > 0 ? batch->rejected[0].error : ERROR_NONE;
}

void batch_reject(struct batch *batch, size_t index, enum error error)
{
    if (index < batch->count && batch->rejected_count < BATCH_EVENTS)
        batch->rejected[batch->rejected_count++] = (struct batch_rejection){index, error};
}
