#include "batch.h"

#include "rfc3339.h"
#include "utf8.h"

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

/* A member that is a string, with its length; NULL otherwise. */
static const char *string_member(struct json_object *event, const char *name, size_t *length)
{
    struct json_object *value;

    if (!json_object_object_get_ex(event, name, &value) ||
        !json_object_is_type(value, json_type_string))
        return NULL;
    *length = (size_t)json_object_get_string_len(value);
    return json_object_get_string(value);
}

static bool has_valid_id(struct json_object *event)
{
    static const char PREFIX[] = "evt_";
    size_t length;
    const char *id = string_member(event, "id", &length);

    return id != NULL && length > strlen(PREFIX) && length <= BATCH_ID_BYTES &&
           memcmp(id, PREFIX, strlen(PREFIX)) == 0 &&
           !utf8_has_control((const unsigned char *)id, length);
}

static bool has_source(struct json_object *event, const char *source, size_t source_length)
{
    size_t length;
    const char *text = string_member(event, "source", &length);

    return text != NULL && length == source_length && memcmp(text, source, length) == 0;
}

static bool has_valid_timestamp(struct json_object *event)
{
    size_t length;
    int64_t ignored;
    const char *text = string_member(event, "timestamp", &length);

    return text != NULL && rfc3339_parse(text, length, &ignored);
}

static bool has_valid_type(struct json_object *event)
{
    static const char *const TYPES[] = {"session", "activity", "tool", "agent", "summary", "error"};
    struct json_object *ignored;
    bool is_named = json_object_object_get_ex(event, "eventType", &ignored);
    size_t length;
    const char *type = string_member(event, is_named ? "eventType" : "type", &length);

    for (size_t i = 0; type != NULL && i < sizeof(TYPES) / sizeof(TYPES[0]); i++) {
        if (length == strlen(TYPES[i]) && memcmp(type, TYPES[i], length) == 0)
            return true;
    }
    return false;
}

static bool has_valid_payload(struct json_object *event, const struct splitter_element *text)
{
    struct json_object *payload;

    return json_object_object_get_ex(event, "payload", &payload) &&
           json_object_is_type(payload, json_type_object) && !text->is_lax;
}

static enum error check_fields(struct json_object *event, const struct splitter_element *text,
                               const char *source, size_t source_length)
{
    if (!json_object_is_type(event, json_type_object))
        return ERROR_INVALID_EVENT;
    if (!has_valid_id(event))
        return ERROR_INVALID_EVENT_ID;
    if (!has_source(event, source, source_length))
        return ERROR_SOURCE_MISMATCH;
    if (!has_valid_timestamp(event))
        return ERROR_INVALID_TIMESTAMP;
    if (!has_valid_type(event))
        return ERROR_INVALID_EVENT_TYPE;
    if (!has_valid_payload(event, text))
        return ERROR_INVALID_PAYLOAD;
    return ERROR_NONE;
}

/* Parses one element whole; false where it is not JSON. null is a NULL event. */
static bool parse(struct json_tokener *tokener, const struct splitter_element *text,
                  struct json_object **event)
{
    enum json_tokener_error result;

    json_tokener_reset(tokener);
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

enum error batch_check(struct batch *batch, const char *source, size_t source_length)
{
    enum error error = ERROR_NONE;
    struct json_tokener *tokener = json_tokener_new_ex(BATCH_EVENT_DEPTH + 1);

    if (tokener == NULL)
        return ERROR_INTERNAL;
    /* Without JSON_TOKENER_VALIDATE_UTF8: batch_split has looked at the whole body. */
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);

    for (size_t i = 0; i < batch->count; i++) {
        const struct splitter_element *text = &batch->events[i];
        struct json_object *event = NULL;
        enum error verdict = ERROR_INVALID_EVENT;

        if (text->length <= BATCH_EVENT_BYTES && text->depth <= BATCH_EVENT_DEPTH) {
            bool is_parsed = parse(tokener, text, &event);

            /* Of raw control characters in strings, json-c minds NUL alone. */
            if (is_parsed)
                verdict = check_fields(event, text, source, source_length);
            else if (text->has_control)
                verdict = ERROR_INVALID_PAYLOAD;
            else
                error = ERROR_INVALID_REQUEST;
            json_object_put(event);
            if (error != ERROR_NONE)
                break;
        }
        if (verdict != ERROR_NONE)
            batch_reject(batch, i, verdict);
    }
    json_tokener_free(tokener);

    if (error == ERROR_NONE && batch->rejected_count > 0)
        error = batch->rejected[0].error;
    return error;
}

void batch_reject(struct batch *batch, size_t index, enum error error)
{
    if (index < batch->count && batch->rejected_count < BATCH_EVENTS)
        batch->rejected[batch->rejected_count++] = (struct batch_rejection){index, error};
}
