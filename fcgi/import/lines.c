#include "import/lines.h"

#include "event/batch.h"

#include <stdbool.h>
#include <string.h>

/*
 * A line stands between one byte and two others, so that it can be made an array of its own:
 * "[", the line, "]" and a NUL.
 */
enum { BEFORE = 1, AFTER = 2 };

void lines_clear(struct lines *lines)
{
    lines->length = 0;
    lines->count = 0;
    lines->valid = 0;
}

char *lines_next(struct lines *lines)
{
    bool has_room = lines->count < LINES_EVENTS && lines->length < LINES_BYTES;

    return has_room ? lines->text + lines->length + BEFORE : NULL;
}

void lines_add(struct lines *lines, size_t length, int64_t number, enum error error)
{
    size_t at = lines->length + BEFORE;

    if (error == ERROR_NONE) {
        size_t blank = 0;

        while (blank < length && memchr(" \t\r\n", lines->text[at + blank], 4) != NULL)
            blank++;
        if (blank == length)
            return;
    }
    lines->events[lines->count++] = (struct lines_event){at, length, number, error};
    lines->length = at + length + AFTER;
}

static void check(struct lines *lines, struct lines_event *event)
{
    char *begin = lines->text + event->at - BEFORE;
    char *end = lines->text + event->at + event->length;

    begin[0] = '[';
    memcpy(end, "]", AFTER);
    if (event->error == ERROR_NONE)
        event->error = batch_check_single(begin, event->length + 2);
    if (event->error == ERROR_NONE) {
        begin[0] = lines->valid++ == 0 ? '[' : ',';
        memset(end, ' ', AFTER);
    } else {
        memset(begin, ' ', BEFORE + event->length + AFTER);
    }
}

void lines_check(struct lines *lines)
{
    for (size_t i = 0; i < lines->count; i++)
        check(lines, &lines->events[i]);
    lines->text[lines->length++] = ']';
}

const char *lines_single(struct lines *lines, size_t index, size_t *length)
{
    const struct lines_event *event = &lines->events[index];
    char *begin = lines->text + event->at - BEFORE;

    begin[0] = '[';
    lines->text[event->at + event->length] = ']';
    *length = event->length + 2;
    return begin;
}
