#include "complete.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct completer *completer_new(const char *source)
{
    struct completer *completer = calloc(1, sizeof(*completer));

    if (completer == NULL)
        return NULL;
    snprintf(completer->source, sizeof(completer->source), "%s", source);
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

void complete_stamp(struct stamp *stamp, int64_t ms)
{
    const int part = (int)(ms % 1000);

    if (stamp->second != ms / 1000 || stamp->text[0] == '\0') {
        const time_t second = (time_t)(ms / 1000);
        struct tm tm;

        gmtime_r(&second, &tm);
        strftime(stamp->text, sizeof(stamp->text), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
        stamp->second = ms / 1000;
    }
    stamp->text[20] = (char)('0' + part / 100);
    stamp->text[21] = (char)('0' + part / 10 % 10);
    stamp->text[22] = (char)('0' + part % 10);
}

static size_t append(char *text, size_t length, const char *more, size_t more_length)
{
    memcpy(text + length, more, more_length);
    return length + more_length;
}

size_t complete_member(char *text, size_t length, const char *name, const char *string)
{
    length = append(text, length, "\"", 1);
    length = append(text, length, name, strlen(name));
    length = append(text, length, "\":\"", 3);
    for (; *string != '\0'; string++) {
        if (*string == '"' || *string == '\\')
            text[length++] = '\\';
        text[length++] = *string;
    }
    return append(text, length, "\",", 2);
}

/* Adds a member to the text, and notes where its value is. */
static size_t add_member(char *text, size_t length, const char *name, const char *string,
                         struct event_text *value)
{
    const size_t begin = length + strlen(name) + 3; /* behind two quotes and a colon */

    length = complete_member(text, length, name, string);
    *value = (struct event_text){text + begin, length - begin - 1};
    return length;
}

/* Rewrites an event's object with the missing members but the source at its front. */
static void fill_in(struct completer *completer, struct scan_event *event, int64_t now)
{
    char *text = completer->text;
    size_t length = append(text, 0, "{", 1);
    const char *rest = event->text + 1;
    const char *end = event->text + event->length;

    if (event->members[SCAN_ID].text == NULL) {
        make_id(completer);
        length = add_member(text, length, "id", completer->id, &event->members[SCAN_ID]);
    }
    if (event->members[SCAN_TIMESTAMP].text == NULL && now != 0) {
        complete_stamp(&completer->stamp, now);
        length = add_member(text, length, "timestamp", completer->stamp.text,
                            &event->members[SCAN_TIMESTAMP]);
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

/* Checks an event as it will be once its source and timestamp are filled in. */
static enum error check(struct completer *completer, const struct completed *completed)
{
    static const char STAMP[] = "\"2000-01-01T00:00:00.000Z\"";
    struct scan_event *event = &completer->batch.events[0];

    if (!completed->has_source) {
        (void)add_member(completer->named, 0, "source", completer->source,
                         &event->members[SCAN_SOURCE]);
        event->length += strlen("\"source\":\"\",") + COMPLETE_SOURCE_BYTES;
    }
    if (!completed->has_timestamp) {
        event->members[SCAN_TIMESTAMP] = (struct event_text){STAMP, strlen(STAMP)};
        event->length += strlen("\"timestamp\":,") + strlen(STAMP);
    }
    return batch_check(&completer->batch, completer->source, strlen(completer->source));
}

enum error complete_event(struct completer *completer, const char *line, size_t length, int64_t now,
                          struct completed *completed)
{
    struct scan_event *event = &completer->batch.events[0];
    enum error error = find_element(completer, line, length);

    if (error != ERROR_NONE)
        return error;
    if (event->is_json)
        fill_in(completer, event, now);
    *completed = (struct completed){
        .text = event->text,
        .length = event->length,
        .has_source = event->members[SCAN_SOURCE].text != NULL,
        .has_timestamp = event->members[SCAN_TIMESTAMP].text != NULL,
    };
    return check(completer, completed);
}
