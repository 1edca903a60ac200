#include "outgoing.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct outgoing *outgoing_new(int folder)
{
    struct outgoing *outgoing = calloc(1, sizeof(*outgoing));

    if (outgoing != NULL && !segment_reader_init(&outgoing->reader, folder)) {
        free(outgoing);
        return NULL;
    }
    return outgoing;
}

void outgoing_free(struct outgoing *outgoing)
{
    if (outgoing == NULL)
        return;
    segment_reader_free(&outgoing->reader);
    free(outgoing);
}

/* Logs once what was lost at a damaged place of the spool. */
static void report_lost(struct outgoing *outgoing, uint64_t records, uint64_t bytes)
{
    const struct segment_reader *reader = &outgoing->reader;
    struct spool_place place = {reader->number, reader->offset, 0};
    char name[SEGMENT_NAME_BYTES + 1];
    struct log_line line;

    if (place.segment < outgoing->reported.segment ||
        (place.segment == outgoing->reported.segment && place.offset <= outgoing->reported.offset))
        return;
    outgoing->reported = place;
    segment_name(reader->number, name);
    log_begin(&line, LOG_ERROR, "spool_recovered");
    log_string(&line, "segment", name);
    log_number(&line, "records", (long long)records);
    log_number(&line, "bytes", (long long)bytes);
    log_string(&line, "detail", "lost damaged records");
    log_end(&line);
}

/* How many events are missing between the serial that was expected and the one found. */
static uint64_t missing(uint64_t expected, uint64_t found)
{
    return found > expected ? found - expected : 0;
}

/* Appends an event to the body; false if it doesn't fit. */
static bool add(struct outgoing *outgoing, const struct record *record)
{
    struct outgoing_event *event = &outgoing->events[outgoing->count];
    size_t length = outgoing->count == 0 ? 1 : outgoing->length;

    if (length + record->length + 1 > sizeof(outgoing->body))
        return false;
    outgoing->body[length - 1] = outgoing->count == 0 ? '[' : ',';
    memcpy(outgoing->body + length, record->text, record->length);
    *event = (struct outgoing_event){.offset = length, .length = record->length};
    outgoing->length = length + record->length + 1;
    outgoing->body[outgoing->length - 1] = ']';
    outgoing->count++;
    return true;
}

/* Whether opening a segment failed because it was dropped. */
static bool was_dropped(struct spool *spool, uint64_t number)
{
    struct spool_extent ignored;
    int error = errno;
    bool is_there = spool_extent(spool, number, &ignored);

    errno = error;
    return error == ENOENT && !is_there;
}

/* Appends an event, and reports damage before it; false if the batch is full. */
static bool take(struct outgoing *outgoing, const struct record *record, uint64_t skipped,
                 uint64_t *expected)
{
    struct segment_reader *reader = &outgoing->reader;

    if (!add(outgoing, record))
        return false;
    if (record->serial > *expected || skipped > 0)
        report_lost(outgoing, missing(*expected, record->serial), skipped);
    *expected = record->serial + 1;
    outgoing->end = (struct spool_place){reader->number, reader->offset, *expected};
    outgoing->events[outgoing->count - 1].end = outgoing->end;
    return true;
}

/* outgoing_load, but leaves the last file open. */
static bool read_events(struct outgoing *outgoing, struct spool *spool, size_t max_events)
{
    struct segment_reader *reader = &outgoing->reader;
    uint64_t expected, skipped = 0;

    outgoing->count = outgoing->length = 0;
    outgoing->end = spool_take(spool);
    expected = outgoing->end.serial;
    if (!segment_seek(reader, outgoing->end.segment, outgoing->end.offset))
        return was_dropped(spool, outgoing->end.segment);
    while (outgoing->count < max_events) {
        struct spool_extent extent;
        struct record record;

        if (!spool_extent(spool, reader->number, &extent))
            return true;
        switch (segment_next(reader, extent.end, &record)) {
        case SEGMENT_RECORD:
            if ((record.flags & RECORD_EVENT) != 0) {
                if (!take(outgoing, &record, skipped, &expected))
                    return true;
                skipped = 0;
            }
            break;
        case SEGMENT_DAMAGED:
            skipped += reader->skipped;
            break;
        case SEGMENT_END:
            if (reader->skipped > 0 || expected < extent.next_serial)
                report_lost(outgoing, missing(expected, extent.next_serial), reader->skipped);
            expected = extent.next_serial;
            if (extent.next == 0) {
                if (outgoing->count == 0)
                    outgoing->end = (struct spool_place){reader->number, extent.end, expected};
                return true;
            }
            if (!segment_seek(reader, extent.next, SEGMENT_HEADER_BYTES))
                return outgoing->count > 0 || was_dropped(spool, extent.next);
            break;
        case SEGMENT_FAILED:
            return outgoing->count > 0;
        }
    }
    return true;
}

bool outgoing_load(struct outgoing *outgoing, struct spool *spool, size_t max_events)
{
    bool is_read = read_events(outgoing, spool, max_events);
    int error = errno;

    segment_release(&outgoing->reader);
    errno = error;
    return is_read;
}

void outgoing_shorten(struct outgoing *outgoing, size_t count)
{
    const struct outgoing_event *last = &outgoing->events[count - 1];

    outgoing->count = count;
    outgoing->length = last->offset + last->length + 1;
    outgoing->body[outgoing->length - 1] = ']';
    outgoing->end = last->end;
}

void outgoing_remove(struct outgoing *outgoing, size_t index)
{
    struct outgoing_event *event = &outgoing->events[index];
    size_t removed = event->length + 1; /* with its comma or bracket */
    size_t next = event->offset + removed;

    if (index > 0)
        event[-1].end = event->end;
    outgoing->count--;
    if (outgoing->count == 0) {
        outgoing->length = 0;
        return;
    }
    memmove(outgoing->body + event->offset, outgoing->body + next, outgoing->length - next);
    outgoing->length -= removed;
    outgoing->body[outgoing->length - 1] = ']';
    for (size_t i = index; i < outgoing->count; i++) {
        outgoing->events[i] = outgoing->events[i + 1];
        outgoing->events[i].offset -= removed;
    }
}
