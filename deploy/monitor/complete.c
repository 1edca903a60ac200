#include "complete.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Adds a member that is a string, and notes where its value is. */
static size_t append_member(char *text, size_t length, const char *name, const char *string,
                            size_t string_length, struct event_text *value)
{
    length = append(text, length, "\"", 1);
    length = append(text, length, name, strlen(name));
    length = append(text, length, "\":", 2);
    value->text = text + length;
    text[length++] = '"';
    for (size_t i = 0; i < string_length; i++) {
        if (string[i] == '"' || string[i] == '\\')
            text[length++] = '\\';
        text[length++] = string[i];
    }
    text[length++] = '"';
    value->length = (size_t)(text + length - value->text);
    return append(text, length, ",", 1);
}

/* Rewrites an event's object with the missing members at its front. */
static void fill_in(struct completer *completer, struct scan_event *event)
{
    struct event_text *id = &event->members[SCAN_ID];
    struct event_text *source = &event->members[SCAN_SOURCE];
    struct event_text *timestamp = &event->members[SCAN_TIMESTAMP];
    char *text = completer->text;
    size_t length = append(text, 0, "{", 1);
    const char *rest = event->text + 1;
    const char *end = event->text + event->length;

    if (id->text == NULL) {
        make_id(completer);
        length = append_member(text, length, "id", completer->id, COMPLETE_ID_BYTES, id);
    }
    if (source->text == NULL)
        length = append_member(text, length, "source", completer->source, completer->source_length,
                               source);
    if (timestamp->text == NULL) {
        make_stamp(completer);
        length = append_member(text, length, "timestamp", completer->stamp, COMPLETE_STAMP_BYTES,
                               timestamp);
    }
    if (length == 1)
        return; /* nothing is missing */
    while (rest < end && strchr(" \t\r\n", *rest) != NULL && *rest != '\0')
        rest++;
    if (*rest == '}')
        length--; /* the comma */
    event->length = append(text, length, rest, (size_t)(end - rest));
    event->text = text;
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

enum error complete_event(struct completer *completer, const char *line, size_t length,
                          const char **text, size_t *text_length)
{
    struct scan_event *event = &completer->batch.events[0];
    enum error error = find_element(completer, line, length);

    if (error != ERROR_NONE)
        return error;
    if (event->is_json)
        fill_in(completer, event);
    *text = event->text;
    *text_length = event->length;
    return batch_check(&completer->batch, completer->source, completer->source_length);
}
