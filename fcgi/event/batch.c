#include "event/batch.h"

#include "base/utf8.h"
#include "event/event.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <string.h>

enum error batch_split(struct batch *batch, const char *body, size_t length)
{
    struct scan scan;
    struct scan_event beyond;
    enum scan_step step;
    size_t nodes = 0;

    batch->count = 0;
    batch->rejected_count = 0;
    if (!utf8_valid((const unsigned char *)body, length))
        return ERROR_INVALID_REQUEST;

    scan_begin(&scan, body, length);
    for (;;) {
        bool fits = batch->count < BATCH_EVENTS;
        struct scan_event *event = fits ? &batch->events[batch->count] : &beyond;

        step = scan_next(&scan, event);
        if (step != SCAN_EVENT)
            break;
        batch->count++;
        nodes += event->nodes;
    }
    if (step == SCAN_BROKEN)
        return ERROR_INVALID_REQUEST;
    if (batch->count == 0)
        return ERROR_EMPTY_BATCH;
    if (batch->count > BATCH_EVENTS || nodes > BATCH_NODES)
        return ERROR_BATCH_TOO_LARGE;
    return ERROR_NONE;
}

/* Reads the strings of an event's members; json-c resolves their escapes. */
struct reader {
    struct json_tokener *tokener; /* NULL until it is needed */
    struct json_object *strings[SCAN_MEMBERS];
};

/*
 * Reads a member that is a string; no text otherwise. False if out of memory.
 *
 * One tokener may read all of them: json-c carries half a surrogate pair into the next string
 * only if a string is cut off inside an escape, and the scanner refuses such a string.
 */
static bool read_string(struct reader *reader, const struct scan_event *scanned,
                        enum scan_member member, struct event_text *text)
{
    const struct event_text *value = &scanned->members[member];
    struct json_object *string;

    *text = (struct event_text){NULL, 0};
    if (value->text == NULL || *value->text != '"')
        return true;
    *text = (struct event_text){value->text + 1, value->length - 2};
    if (memchr(text->text, '\\', text->length) == NULL)
        return true;

    if (reader->tokener == NULL)
        reader->tokener = json_tokener_new();
    if (reader->tokener == NULL)
        return false;
    string = json_tokener_parse_ex(reader->tokener, value->text, (int)value->length);
    if (string == NULL)
        return false;
    *text = (struct event_text){json_object_get_string(string),
                                (size_t)json_object_get_string_len(string)};
    reader->strings[member] = string;
    return true;
}

/* Reads the members that event_check needs; they point into the body or the reader's strings. */
static bool read_event(struct reader *reader, const struct scan_event *scanned, struct event *event)
{
    const struct event_text *payload = &scanned->members[SCAN_PAYLOAD];
    bool has_event_type = scanned->members[SCAN_EVENT_TYPE].text != NULL;

    event->has_payload = payload->text != NULL && *payload->text == '{' && scanned->is_storable;
    return read_string(reader, scanned, SCAN_ID, &event->id) &&
           read_string(reader, scanned, SCAN_SOURCE, &event->source) &&
           read_string(reader, scanned, SCAN_TIMESTAMP, &event->timestamp) &&
           read_string(reader, scanned, has_event_type ? SCAN_EVENT_TYPE : SCAN_TYPE, &event->type);
}

static void forget_strings(struct reader *reader)
{
    for (size_t i = 0; i < SCAN_MEMBERS; i++) {
        json_object_put(reader->strings[i]);
        reader->strings[i] = NULL;
    }
}

static void free_reader(struct reader *reader)
{
    forget_strings(reader);
    if (reader->tokener != NULL)
        json_tokener_free(reader->tokener);
}

/* Everything but its size. */
static enum error check_one(struct reader *reader, const struct scan_event *scanned,
                            const struct event_text *source)
{
    struct event event;
    enum error error;

    if (scanned->depth > BATCH_EVENT_DEPTH)
        return ERROR_INVALID_EVENT;
    /* A raw control character is the event's own fault; other bad JSON is the batch's. */
    if (!scanned->is_json)
        return scanned->has_control ? ERROR_INVALID_PAYLOAD : ERROR_INVALID_REQUEST;
    if (*scanned->text != '{')
        return ERROR_INVALID_EVENT;
    error = read_event(reader, scanned, &event) ? event_check(&event, source) : ERROR_INTERNAL;
    forget_strings(reader);
    return error;
}

static enum error check_all(struct reader *reader, struct batch *batch,
                            const struct event_text *source)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct scan_event *scanned = &batch->events[i];
        enum error error = scanned->length > BATCH_EVENT_BYTES ? ERROR_INVALID_EVENT
                                                               : check_one(reader, scanned, source);

        if (error == ERROR_INVALID_REQUEST || error == ERROR_INTERNAL)
            return error;
        if (error != ERROR_NONE)
            batch_reject(batch, i, error);
    }
    return batch->rejected_count > 0 ? batch->rejected[0].error : ERROR_NONE;
}

enum error batch_check(struct batch *batch, const char *source, size_t source_length)
{
    const struct event_text wanted = {source, source_length};
    struct reader reader = {.tokener = NULL};
    enum error error = check_all(&reader, batch, &wanted);

    free_reader(&reader);
    return error;
}

enum error batch_check_single(const char *body, size_t length)
{
    struct reader reader = {.tokener = NULL};
    struct scan scan;
    struct scan_event event;
    struct scan_event other;
    enum error error;

    if (!utf8_valid((const unsigned char *)body, length))
        return ERROR_INVALID_REQUEST;
    scan_begin(&scan, body, length);
    if (scan_next(&scan, &event) != SCAN_EVENT || scan_next(&scan, &other) != SCAN_END)
        return ERROR_INVALID_REQUEST;
    if (event.nodes > BATCH_NODES)
        return ERROR_INVALID_EVENT;
    error = check_one(&reader, &event, NULL);
    free_reader(&reader);
    return error;
}

void batch_reject(struct batch *batch, size_t index, enum error error)
{
    if (index < batch->count && batch->rejected_count < BATCH_EVENTS)
        batch->rejected[batch->rejected_count++] = (struct batch_rejection){index, error};
}
