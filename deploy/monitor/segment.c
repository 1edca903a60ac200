#include "segment.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char MAGIC[8] = "steepsp1";
static const char SUFFIX[] = ".segment";

enum { DIGITS = 16, CHECKED_BYTES = SEGMENT_HEADER_BYTES - 8 };

void segment_name(uint64_t number, char name[static SEGMENT_NAME_BYTES + 1])
{
    snprintf(name, SEGMENT_NAME_BYTES + 1, "%016llx%s", (unsigned long long)number, SUFFIX);
}

uint64_t segment_number(const char *name)
{
    if (strspn(name, "0123456789abcdef") != DIGITS || strcmp(name + DIGITS, SUFFIX) != 0)
        return 0;
    return strtoull(name, NULL, 16);
}

void segment_encode_header(uint64_t number, uint64_t first_serial,
                           unsigned char header[static SEGMENT_HEADER_BYTES])
{
    uint64_t fields[3] = {htole64(number), htole64(first_serial)};

    memcpy(header, MAGIC, sizeof(MAGIC));
    memcpy(header + sizeof(MAGIC), fields, 2 * sizeof(fields[0]));
    fields[2] = htole64(record_check(header, CHECKED_BYTES));
    memcpy(header + CHECKED_BYTES, &fields[2], sizeof(fields[2]));
}

bool segment_decode_header(const unsigned char *header, size_t length, uint64_t number,
                           uint64_t *first_serial)
{
    unsigned char expected[SEGMENT_HEADER_BYTES];
    uint64_t serial;

    if (length < SEGMENT_HEADER_BYTES)
        return false;
    memcpy(&serial, header + sizeof(MAGIC) + sizeof(number), sizeof(serial));
    serial = le64toh(serial);
    segment_encode_header(number, serial, expected);
    if (memcmp(header, expected, sizeof(expected)) != 0)
        return false;
    *first_serial = serial;
    return true;
}

bool segment_reader_init(struct segment_reader *reader, int folder)
{
    *reader = (struct segment_reader){.folder = folder, .file = -1};
    reader->buffer = malloc(SEGMENT_BUFFER_BYTES);
    return reader->buffer != NULL;
}

void segment_release(struct segment_reader *reader)
{
    if (reader->file >= 0)
        close(reader->file);
    reader->file = -1;
}

void segment_reader_free(struct segment_reader *reader)
{
    segment_release(reader);
    free(reader->buffer);
    reader->buffer = NULL;
}

bool segment_seek(struct segment_reader *reader, uint64_t number, uint64_t offset)
{
    if (reader->file < 0 || reader->number != number) {
        char name[SEGMENT_NAME_BYTES + 1];

        segment_release(reader);
        segment_name(number, name);
        reader->file = openat(reader->folder, name, O_RDONLY | O_CLOEXEC);
        if (reader->file < 0)
            return false;
        reader->number = number;
        reader->start = reader->filled = 0;
    } else if (offset <= reader->offset && reader->offset - offset <= reader->start) {
        reader->start -= (size_t)(reader->offset - offset);
    } else {
        reader->start = reader->filled = 0;
    }
    reader->offset = offset;
    return true;
}

/* Reads on, up to the end given; 0 where nothing more is to be had, -1 with errno. */
static ssize_t fill(struct segment_reader *reader, uint64_t end)
{
    uint64_t at = reader->offset + (reader->filled - reader->start);
    size_t room;
    ssize_t n;

    if (reader->start > 0 && reader->filled > SEGMENT_BUFFER_BYTES / 2) {
        memmove(reader->buffer, reader->buffer + reader->start, reader->filled - reader->start);
        reader->filled -= reader->start;
        reader->start = 0;
    }
    room = SEGMENT_BUFFER_BYTES - reader->filled;
    if (at >= end)
        return 0;
    if (room > end - at)
        room = (size_t)(end - at);
    do
        n = pread(reader->file, reader->buffer + reader->filled, room, (off_t)at);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        reader->filled += (size_t)n;
    return n;
}

static void pass(struct segment_reader *reader, size_t bytes)
{
    reader->start += bytes;
    reader->offset += bytes;
}

/* Decodes what is at hand, reading more of the file while the record goes on. */
static enum segment_step decode(struct segment_reader *reader, uint64_t end, struct record *record)
{
    for (;;) {
        size_t length = reader->filled - reader->start;
        ssize_t n;

        if (length > 0) {
            switch (record_decode(reader->buffer + reader->start, length, record)) {
            case RECORD_WHOLE:
                return SEGMENT_RECORD;
            case RECORD_DAMAGED:
                return SEGMENT_DAMAGED;
            case RECORD_PART:
                break;
            }
        }
        n = fill(reader, end);
        if (n <= 0)
            return n < 0 ? SEGMENT_FAILED : SEGMENT_END;
    }
}

/* Looks for the next record behind one that is damaged, or behind a part of one at the end. */
static enum segment_step resume(struct segment_reader *reader, uint64_t end, struct record *record)
{
    const uint64_t damage = reader->offset;
    enum segment_step step;

    do {
        pass(reader,
             record_next_mark(reader->buffer + reader->start, reader->filled - reader->start));
        step = decode(reader, end, record);
    } while (step == SEGMENT_DAMAGED || (step == SEGMENT_END && reader->start < reader->filled));
    reader->skipped = reader->offset - damage;
    if (step == SEGMENT_END) {
        /* All of it is a tail: stay where it begins. */
        reader->start = reader->filled = 0;
        reader->offset = damage;
    }
    return step == SEGMENT_RECORD ? SEGMENT_DAMAGED : step;
}

enum segment_step segment_next(struct segment_reader *reader, uint64_t end, struct record *record)
{
    enum segment_step step = decode(reader, end, record);

    reader->skipped = 0;
    if (step == SEGMENT_DAMAGED || (step == SEGMENT_END && reader->start < reader->filled))
        return resume(reader, end, record);
    if (step == SEGMENT_RECORD)
        pass(reader, record_size(record->length));
    return step;
}
