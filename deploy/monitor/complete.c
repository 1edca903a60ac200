#include "complete.h"

#include "event/skim.h"

#include <json-c/json.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Which members an event has, of whatever type. */
struct presence {
    bool id;
    bool source;
    bool timestamp;
};

struct completer *completer_new(const char *source)
{
    struct completer *completer = calloc(1, sizeof(*completer));

    if (completer == NULL)
        return NULL;
    snprintf(completer->source, sizeof(completer->source), "%s", source);
    completer->source_length = strlen(completer->source);
    completer->random_at = sizeof(completer->random);
    return completer;
}

const char *complete_error_code(enum error error)
{
    return error == ERROR_INVALID_REQUEST ? "invalid_json" : error_entry(error)->code;
}

const char *complete_error_message(enum error error)
{
    return error == ERROR_INVALID_REQUEST ? "the line must be one JSON object in UTF-8."
                                          : error_entry(error)->message;
}

/* Writes evt_ and 20 random characters; random bytes are fetched a few thousand at a time. */
static void make_id(struct completer *completer)
{
    static const char DIGITS[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const unsigned char count = sizeof(DIGITS) - 1;
    char *id = completer->id;
    size_t length = 4;

    memcpy(id, "evt_", length);
    while (length < COMPLETE_ID_BYTES) {
        unsigned char byte;

        if (completer->random_at == sizeof(completer->random)) {
            randombytes_buf(completer->random, sizeof(completer->random));
            completer->random_at = 0;
        }
        byte = completer->random[completer->random_at++];
        /* The highest values are skipped: they would make some characters more frequent. */
        if (byte < 256 / count * count)
            id[length++] = DIGITS[byte % count];
    }
}

/* The time in UTC, to the millisecond. */
static void make_stamp(struct completer *completer)
{
    struct timespec now;
    int ms;

    clock_gettime(CLOCK_REALTIME, &now);
    if (completer->second != now.tv_sec || completer->stamp[0] == '\0') {
        struct tm tm;

        gmtime_r(&now.tv_sec, &tm);
        strftime(completer->stamp, sizeof(completer->stamp), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
        completer->second = now.tv_sec;
    }
    ms = (int)(now.tv_nsec / 1000000);
    completer->stamp[20] = (char)('0' + ms / 100);
    completer->stamp[21] = (char)('0' + ms / 10 % 10);
    completer->stamp[22] = (char)('0' + ms % 10);
}

static size_t append(char *text, size_t length, const char *more, size_t more_length)
{
    memcpy(text + length, more, more_length);
    return length + more_length;
}

static size_t append_member(char *text, size_t length, const char *name, const char *value,
                            size_t value_length)
{
    length = append(text, length, "\"", 1);
    length = append(text, length, name, strlen(name));
    length = append(text, length, "\":\"", 3);
    for (size_t i = 0; i < value_length; i++) {
        if (value[i] == '"' || value[i] == '\\')
            text[length++] = '\\';
        text[length++] = value[i];
    }
    return append(text, length, "\",", 2);
}

/* Writes the object with the missing members at its front; returns its length. */
static size_t fill_in(struct completer *completer, const struct splitter_element *object,
                      const struct presence *has)
{
    char *text = completer->text;
    size_t length = append(text, 0, "{", 1);
    const char *rest = object->text + 1;
    const char *end = object->text + object->length;

    if (!has->id)
        length = append_member(text, length, "id", completer->id, COMPLETE_ID_BYTES);
    if (!has->source)
        length = append_member(text, length, "source", completer->source, completer->source_length);
    if (!has->timestamp)
        length = append_member(text, length, "timestamp", completer->stamp, COMPLETE_STAMP_BYTES);
    while (rest < end && strchr(" \t\r\n", *rest) != NULL && *rest != '\0')
        rest++;
    if (*rest == '}')
        length--; /* the comma */
    return append(text, length, rest, (size_t)(end - rest));
}

/* Finds the one element of a line, which goes between brackets for it. */
static enum error find_element(struct completer *completer, const char *line, size_t length)
{
    completer->line[0] = '[';
    memcpy(completer->line + 1, line, length);
    completer->line[length + 1] = ']';
    completer->line[length + 2] = '\0';
    if (batch_split(&completer->batch, completer->line, length + 2) != ERROR_NONE ||
        completer->batch.count != 1 || *completer->batch.events[0].text != '{')
        return ERROR_INVALID_REQUEST;
    return ERROR_NONE;
}

/* What json-c finds in an event that can't be skimmed; all of it where it finds no object. */
static enum error find_members(const struct splitter_element *element, struct presence *has)
{
    struct json_tokener *tokener = json_tokener_new_ex(BATCH_EVENT_DEPTH + 1);
    struct json_object *object;

    if (tokener == NULL)
        return ERROR_INTERNAL;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    object = json_tokener_parse_ex(tokener, element->text, (int)element->length);
    *has = (struct presence){true, true, true};
    if (json_object_is_type(object, json_type_object)) {
        has->id = json_object_object_get_ex(object, "id", NULL);
        has->source = json_object_object_get_ex(object, "source", NULL);
        has->timestamp = json_object_object_get_ex(object, "timestamp", NULL);
    }
    json_object_put(object);
    json_tokener_free(tokener);
    return ERROR_NONE;
}

/* An event whose members stand there plainly: one look at it is enough. */
static enum error complete_skimmed(struct completer *completer, struct event *event,
                                   const char **text, size_t *text_length)
{
    const struct splitter_element *element = &completer->batch.events[0];
    const struct event_text source = {completer->source, completer->source_length};
    const struct presence has = {event->id.text != NULL, event->source.text != NULL,
                                 event->timestamp.text != NULL};

    *text = element->text;
    *text_length = element->length;
    if (!has.id) {
        make_id(completer);
        event->id = (struct event_text){completer->id, sizeof(completer->id)};
    }
    if (!has.source)
        event->source = source;
    if (!has.timestamp) {
        make_stamp(completer);
        event->timestamp = (struct event_text){completer->stamp, COMPLETE_STAMP_BYTES};
    }
    if (!has.id || !has.source || !has.timestamp) {
        *text_length = fill_in(completer, element, &has);
        *text = completer->text;
    }
    if (*text_length > BATCH_EVENT_BYTES || element->depth > BATCH_EVENT_DEPTH)
        return ERROR_INVALID_EVENT;
    return event_check(event, &source);
}

/* Any other: it is completed by what json-c finds, and then judged as the server does. */
static enum error complete_parsed(struct completer *completer, const char **text,
                                  size_t *text_length)
{
    struct splitter_element *element = &completer->batch.events[0];
    struct presence has;
    enum error error = find_members(element, &has);

    if (error != ERROR_NONE)
        return error;
    if (!has.id || !has.source || !has.timestamp) {
        size_t length;

        make_id(completer);
        make_stamp(completer);
        length = fill_in(completer, element, &has);
        if (length > BATCH_EVENT_BYTES)
            return ERROR_INVALID_EVENT;
        error = find_element(completer, completer->text, length);
        if (error != ERROR_NONE)
            return error;
    }
    *text = element->text;
    *text_length = element->length;
    return batch_check(&completer->batch, completer->source, completer->source_length);
}

enum error complete_event(struct completer *completer, const char *line, size_t length,
                          const char **text, size_t *text_length)
{
    struct event event;
    enum error error = find_element(completer, line, length);

    if (error != ERROR_NONE)
        return error;
    if (skim_event(&completer->batch.events[0], &event))
        return complete_skimmed(completer, &event, text, text_length);
    return complete_parsed(completer, text, text_length);
}
