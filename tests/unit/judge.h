/* A body as ingest.fcgi judges it, for the tests of what takes part in that. */
#ifndef STEEP_UNIT_JUDGE_H
#define STEEP_UNIT_JUDGE_H

#include "event/batch.h"
#include "event/event.h"
#include "unit.h"

#include <ctype.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An event that breaks no rule, but for the source's name: macbook. */
#define EVENT(id, payload)                                                                         \
    "{\"id\":\"" id "\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","            \
    "\"type\":\"tool\",\"payload\":" payload "}"

/* What was found in the body judged last. */
static struct batch batch;

/* The copy has just its NUL behind it. */
static inline enum error judge(const char *body, size_t length)
{
    char *copy = malloc(length + 1);
    enum error error;

    memcpy(copy, body, length);
    copy[length] = '\0';
    error = batch_split(&batch, copy, length);
    if (error == ERROR_NONE)
        error = batch_check(&batch, "macbook", 7);
    free(copy);
    return error;
}

static inline void assert_judged(const char *body, enum error expected)
{
    enum error error = judge(body, strlen(body));

    if (error != expected)
        fail_msg("%.200s: %d, expected %d", body, (int)error, (int)expected);
}

/* The verdict on a batch of one event. */
static inline enum error judge_event(const char *event, size_t length)
{
    char *body = malloc(length + 2);
    enum error error;

    body[0] = '[';
    memcpy(body + 1, event, length);
    body[length + 1] = ']';
    error = judge(body, length + 2);
    free(body);
    return error;
}

/* The same when each string that begins with a letter has an escape there. */
static inline enum error judge_escaped_event(const char *event, size_t length)
{
    char *escaped = malloc(length * 6 + 1);
    char *to = escaped;
    bool is_inside = false;
    enum error error;

    for (size_t i = 0; i < length; i++) {
        *to++ = event[i];
        if (event[i] == '"') {
            is_inside = !is_inside;
            if (is_inside && i + 1 < length && isalpha((unsigned char)event[i + 1]))
                to += sprintf(to, "\\u%04x", (unsigned)event[++i]);
        } else if (event[i] == '\\' && is_inside && i + 1 < length) {
            *to++ = event[++i];
        }
    }
    error = judge_event(escaped, (size_t)(to - escaped));
    free(escaped);
    return error;
}

static inline struct event_text parsed_string(struct json_object *object, const char *name)
{
    struct json_object *value;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_string))
        return (struct event_text){NULL, 0};
    return (struct event_text){json_object_get_string(value),
                               (size_t)json_object_get_string_len(value)};
}

/*
 * The same when json-c reads the event, which is the one that was judged last. It reads what is
 * JSON to the scanner, and refuses the rest.
 */
static inline enum error judge_parsed_event(const char *event, size_t length)
{
    static const struct event_text SOURCE = {"macbook", 7};
    const struct scan_event *scanned = &batch.events[0];
    struct json_tokener *tokener = json_tokener_new_ex(BATCH_EVENT_DEPTH + 1);
    struct json_object *object, *value;
    enum error error = scanned->has_control ? ERROR_INVALID_PAYLOAD : ERROR_INVALID_REQUEST;

    json_tokener_set_flags(tokener, scanned->is_json ? 0 : JSON_TOKENER_STRICT);
    object = json_tokener_parse_ex(tokener, event, (int)length);
    assert_int_equal(json_tokener_get_error(tokener) == json_tokener_success &&
                         json_tokener_get_parse_end(tokener) == length,
                     scanned->is_json);
    if (object != NULL) {
        struct event read = {
            .id = parsed_string(object, "id"),
            .source = parsed_string(object, "source"),
            .timestamp = parsed_string(object, "timestamp"),
            .type = parsed_string(object, json_object_object_get_ex(object, "eventType", NULL)
                                              ? "eventType"
                                              : "type"),
            .has_payload = json_object_object_get_ex(object, "payload", &value) &&
                           json_object_is_type(value, json_type_object) && scanned->is_storable,
        };

        error = event_check(&read, &SOURCE);
    }
    json_object_put(object);
    json_tokener_free(tokener);
    return error;
}

/* The verdict on an event, which must be the same with escapes and when json-c reads it. */
static inline enum error judge_each_way(const char *event, size_t length)
{
    enum error error = judge_event(event, length);

    if (event[0] == '{' && batch.count == 1 && batch.events[0].length == length &&
        length <= BATCH_EVENT_BYTES && batch.events[0].depth <= BATCH_EVENT_DEPTH &&
        judge_parsed_event(event, length) != error)
        fail_msg("%.*s: %d, another when parsed", (int)length, event, (int)error);
    if (length <= BATCH_EVENT_BYTES / 6 && judge_escaped_event(event, length) != error)
        fail_msg("%.*s: %d, another with escapes", (int)length, event, (int)error);
    return error;
}

static inline void assert_event(const char *event, enum error expected)
{
    enum error error = judge_each_way(event, strlen(event));

    if (error != expected)
        fail_msg("%.200s: %d, expected %d", event, (int)error, (int)expected);
}

#endif
