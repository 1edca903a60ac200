#include "recovery.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is said of a segment's damage. */
static void report(uint64_t segment, const char *key, uint64_t number, const char *detail)
{
    struct log_line line;
    char name[SEGMENT_NAME_BYTES + 1];

    segment_name(segment, name);
    log_begin(&line, LOG_WARNING, "spool_recovered");
    log_string(&line, "segment", name);
    log_number(&line, key, (long long)number);
    log_string(&line, "detail", detail);
    log_end(&line);
}

static int by_number(const void *one, const void *other)
{
    const struct spool_segment *a = one;
    const struct spool_segment *b = other;

    return (a->number > b->number) - (a->number < b->number);
}

/* Lists the segments by their names and sizes. */
static bool list_segments(struct recovery *recovery, int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    size_t room = 0;
    int error = 0;

    if (directory == NULL)
        return false;
    while (error == 0 && (errno = 0, entry = readdir(directory)) != NULL) {
        uint64_t number = segment_number(entry->d_name);
        struct stat status;

        if (number == 0)
            continue;
        if (fstatat(folder, entry->d_name, &status, 0) != 0) {
            /* One that was just removed by a process that is running. */
            error = errno == ENOENT ? 0 : errno;
            continue;
        }
        if (recovery->count == room) {
            struct spool_segment *segments;

            room = room * 2 + 16;
            segments = reallocarray(recovery->segments, room, sizeof(*segments));
            if (segments == NULL) {
                error = ENOMEM;
                break;
            }
            recovery->segments = segments;
        }
        recovery->segments[recovery->count++] =
            (struct spool_segment){number, 0, (uint64_t)status.st_size};
    }
    if (error == 0)
        error = errno;
    closedir(directory);
    if (recovery->count > 0)
        qsort(recovery->segments, recovery->count, sizeof(*recovery->segments), by_number);
    errno = error;
    return error == 0;
}

/* Finds a segment's first serial: in its header or, where that is damaged, in its first record. */
static bool read_first_serial(struct segment_reader *reader, struct spool_segment *segment,
                              bool is_logged)
{
    unsigned char header[SEGMENT_HEADER_BYTES];
    struct record record;
    enum segment_step step;
    ssize_t n;

    if (!segment_seek(reader, segment->number, SEGMENT_HEADER_BYTES))
        return false;
    n = pread(reader->file, header, sizeof(header), 0);
    if (n < 0)
        return false;
    if (segment_decode_header(header, (size_t)n, segment->number, &segment->first_serial))
        return true;
    if (is_logged && n == SEGMENT_HEADER_BYTES)
        report(segment->number, "bytes", SEGMENT_HEADER_BYTES, "skipped a damaged header");
    while ((step = segment_next(reader, segment->bytes, &record)) == SEGMENT_DAMAGED)
        ;
    segment->first_serial = step == SEGMENT_RECORD ? record.serial : 0;
    return step != SEGMENT_FAILED;
}

/* What reading the last segment has shown so far. */
struct tail {
    uint64_t end; /* of the last whole record */
    uint64_t next_serial;
    struct position position;
};

/*
 * Goes through the last segment. *kept is what it is up to where it is to be cut: before damage
 * that no sync lies behind, if the input is a file; else behind the last whole record.
 */
static bool read_last(struct segment_reader *reader, const struct spool_segment *last,
                      struct tail *tail, struct tail *kept)
{
    struct record record;
    enum segment_step step;
    bool is_damaged = false;
    bool is_cut = false;

    if (!segment_seek(reader, last->number, SEGMENT_HEADER_BYTES))
        return false;
    while ((step = segment_next(reader, last->bytes, &record)) == SEGMENT_RECORD ||
           step == SEGMENT_DAMAGED) {
        if (step == SEGMENT_DAMAGED) {
            is_damaged = true;
            continue;
        }
        if ((record.flags & RECORD_SYNCED) != 0) {
            is_cut = false;
        } else if (is_damaged && !is_cut && (record.flags & RECORD_FOLLOWED) != 0 &&
                   tail->position.inode != 0) {
            is_cut = true;
            *kept = *tail;
        }
        is_damaged = false;
        tail->end = reader->offset;
        tail->next_serial = record.serial + ((record.flags & RECORD_EVENT) != 0);
        if (record.position.inode != 0)
            tail->position = record.position;
    }
    if (!is_cut)
        *kept = *tail;
    return step != SEGMENT_FAILED;
}

/*
 * Reads the last segment, or the one before it where that has no whole record: a kill or a power
 * cut came while it was begun, and what it would say first, the position, ends the other.
 */
static bool find_last(struct recovery *recovery, struct segment_reader *reader, struct tail *tail,
                      struct tail *kept, bool is_logged)
{
    for (;; recovery->count--) {
        const struct spool_segment *last = &recovery->segments[recovery->count - 1];

        *tail = (struct tail){.end = SEGMENT_HEADER_BYTES, .next_serial = last->first_serial};
        if (!read_last(reader, last, tail, kept))
            return false;
        if (tail->end > SEGMENT_HEADER_BYTES || recovery->count == 1)
            return true;
        if (is_logged)
            report(last->number, "bytes", last->bytes, "skipped a segment without records");
    }
}

/* Finds the end of what is good, the next serial and the input's position. */
static bool recover_last(struct recovery *recovery, struct segment_reader *reader, bool is_logged)
{
    struct spool_segment *last;
    struct tail tail, kept;

    if (!find_last(recovery, reader, &tail, &kept, is_logged))
        return false;
    last = &recovery->segments[recovery->count - 1];
    /* What was answered was on the disk: damage before the cursor is no torn end. */
    if (recovery->cursor.place.segment == last->number && recovery->cursor.place.offset > kept.end)
        kept = tail;
    recovery->next_serial = kept.next_serial;
    recovery->position = kept.position;
    if (kept.end < tail.end && is_logged)
        report(last->number, "bytes", last->bytes - kept.end,
               "truncated at damage, reading the lines from there on again");
    else if ((kept.end < last->bytes || last->bytes < SEGMENT_HEADER_BYTES) && is_logged)
        report(last->number, "bytes", last->bytes - kept.end,
               "removed an incomplete record at the end");
    if (last->bytes < SEGMENT_HEADER_BYTES)
        recovery->must_rotate = true;
    else
        last->bytes = kept.end;
    return true;
}

/* Puts the cursor where there is something to read. */
static void settle_cursor(struct recovery *recovery, enum cursor_verdict verdict, bool is_logged)
{
    struct spool_place *place = &recovery->cursor.place;
    const struct spool_segment *first = recovery->segments;
    const struct spool_segment *last =
        recovery->count > 0 ? &recovery->segments[recovery->count - 1] : NULL;

    if (verdict == CURSOR_DAMAGED && is_logged)
        log_event(LOG_WARNING, "spool_recovered",
                  "the cursor is damaged, sending the oldest events again");
    if (last == NULL || place->segment > last->number ||
        (place->segment == last->number && place->offset > last->bytes)) {
        recovery->must_rotate = true;
        return;
    }
    for (size_t i = 0; i < recovery->count; i++) {
        if (first[i].number < place->segment)
            continue;
        if (first[i].number > place->segment)
            *place =
                (struct spool_place){first[i].number, SEGMENT_HEADER_BYTES, first[i].first_serial};
        return;
    }
}

static bool recover(struct recovery *recovery, struct segment_reader *reader, bool is_logged)
{
    enum cursor_verdict verdict = cursor_read(reader->folder, &recovery->cursor);

    if (!list_segments(recovery, reader->folder))
        return false;
    for (size_t i = 0; i < recovery->count; i++) {
        if (!read_first_serial(reader, &recovery->segments[i], is_logged))
            return false;
    }
    recovery->next_serial = 1;
    if (recovery->count > 0 && !recover_last(recovery, reader, is_logged))
        return false;
    /* One that doesn't tell its own ends, as far as is known, where the next begins. */
    for (size_t i = recovery->count; i > 1; i--) {
        if (recovery->segments[i - 2].first_serial == 0)
            recovery->segments[i - 2].first_serial = recovery->segments[i - 1].first_serial;
    }
    settle_cursor(recovery, verdict, is_logged);
    if (recovery->next_serial < recovery->cursor.place.serial)
        recovery->next_serial = recovery->cursor.place.serial;
    return true;
}

bool recovery_run(struct recovery *recovery, int folder, bool is_logged)
{
    struct segment_reader reader;
    bool is_done;
    int error;

    *recovery = (struct recovery){0};
    if (!segment_reader_init(&reader, folder)) {
        errno = ENOMEM;
        return false;
    }
    is_done = recover(recovery, &reader, is_logged);
    error = errno;
    segment_reader_free(&reader);
    errno = error;
    return is_done;
}

void recovery_free(struct recovery *recovery)
{
    free(recovery->segments);
    recovery->segments = NULL;
}
