#include "spool.h"

#include "clock.h"
#include "cursor.h"
#include "files.h"
#include "log.h"
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SEGMENT_LEAST = 256 * 1024;
static const uint64_t SEGMENT_MOST = 16 * 1024 * 1024;

enum { SEGMENTS = 16 }; /* that a full spool is made of, unless they would be too small or large */

/* Under the lock, as the reader removes what stands before it. */
static struct spool_segment *last_segment(struct spool *spool)
{
    return &spool->segments[spool->count - 1];
}

/* What a new segment has already: its header and the position. */
static uint64_t empty_bytes(void)
{
    return SEGMENT_HEADER_BYTES + record_size(0);
}

static void report(const char *event, const char *detail, int error)
{
    struct log_line line;

    log_begin(&line, LOG_ERROR, event);
    log_string(&line, "detail", detail);
    log_string(&line, "error", strerror(error));
    log_end(&line);
}

static bool init(struct spool *spool, int folder, uint64_t limit, bool is_blocking)
{
    pthread_condattr_t attributes;

    *spool = (struct spool){
        .folder = folder,
        .limit = limit,
        .segment_bytes = limit / SEGMENTS,
        .is_blocking = is_blocking,
        .file = -1,
    };
    if (spool->segment_bytes < SEGMENT_LEAST)
        spool->segment_bytes = SEGMENT_LEAST;
    if (spool->segment_bytes > SEGMENT_MOST)
        spool->segment_bytes = SEGMENT_MOST;
    pthread_mutex_init(&spool->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&spool->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    spool->pending = malloc(SPOOL_PENDING_BYTES);
    return spool->pending != NULL;
}

/* Adds a segment to the list; under the lock, or before there is another thread. */
static bool add_segment(struct spool *spool, const struct spool_segment *segment)
{
    if (spool->count == spool->room) {
        size_t room = spool->room * 2 + SEGMENTS;
        struct spool_segment *segments =
            reallocarray(spool->segments, room, sizeof(*spool->segments));

        if (segments == NULL)
            return false;
        spool->segments = segments;
        spool->room = room;
    }
    spool->segments[spool->count++] = *segment;
    return true;
}

static void remove_segments(struct spool *spool, const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char name[SEGMENT_NAME_BYTES + 1];

        segment_name(numbers[i], name);
        if (unlinkat(spool->folder, name, 0) != 0 && errno != ENOENT)
            report("spool_error", "a segment can't be removed", errno);
    }
}

/*
 * Begins a new segment, with the position in it, so that the last segment
 * always has the latest. False with errno, and the one before goes on.
 */
static bool rotate(struct spool *spool)
{
    const struct record position = {.serial = spool->next_serial, .position = spool->position};
    struct spool_segment segment = {
        .number = 1,
        .first_serial = spool->next_serial,
        .bytes = empty_bytes(),
    };
    unsigned char bytes[SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + RECORD_CHECK_BYTES];
    char name[SEGMENT_NAME_BYTES + 1];
    int file, old;

    pthread_mutex_lock(&spool->lock);
    if (spool->count > 0)
        segment.number = last_segment(spool)->number + 1;
    if (segment.number <= spool->cursor.segment)
        segment.number = spool->cursor.segment + 1;
    pthread_mutex_unlock(&spool->lock);
    segment_encode_header(segment.number, segment.first_serial, bytes);
    record_encode(&position, bytes + SEGMENT_HEADER_BYTES);
    segment_name(segment.number, name);
    (void)spool_sync(spool); /* which says where it fails; what comes goes to another file */
    file = openat(spool->folder, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    if (!files_write(file, bytes, sizeof(bytes), 0) || fdatasync(file) != 0 ||
        fsync(spool->folder) != 0) {
        int error = errno;

        close(file);
        unlinkat(spool->folder, name, 0);
        errno = error;
        return false;
    }

    pthread_mutex_lock(&spool->lock);
    if (!add_segment(spool, &segment)) {
        pthread_mutex_unlock(&spool->lock);
        close(file);
        unlinkat(spool->folder, name, 0);
        errno = ENOMEM;
        return false;
    }
    old = spool->file;
    spool->file = file;
    spool->synced = segment.bytes;
    pthread_mutex_unlock(&spool->lock);
    if (old >= 0)
        close(old);
    spool->must_rotate = false;
    return true;
}

/* Takes over what recovery has found, and goes on in the last segment. */
static bool adopt(struct spool *spool, struct recovery *recovery)
{
    spool->cursor = recovery->cursor.place;
    spool->sent = recovery->cursor.sent;
    spool->next_serial = spool->pending_serial = recovery->next_serial;
    spool->taken = spool->cursor.serial;
    spool->position = spool->pending_position = recovery->position;
    for (size_t i = 0; i < recovery->count; i++) {
        if (!add_segment(spool, &recovery->segments[i]))
            return false;
    }
    if (spool->count > 0 && !recovery->must_rotate) {
        char name[SEGMENT_NAME_BYTES + 1];

        segment_name(last_segment(spool)->number, name);
        spool->file = openat(spool->folder, name, O_RDWR | O_CLOEXEC);
        if (spool->file < 0 || ftruncate(spool->file, (off_t)last_segment(spool)->bytes) != 0)
            return false;
        if (fdatasync(spool->file) == 0)
            spool->synced = last_segment(spool)->bytes;
    } else if (!rotate(spool)) {
        return false;
    }
    if (spool->cursor.segment < spool->segments[0].number ||
        spool->cursor.segment > last_segment(spool)->number)
        spool->cursor = (struct spool_place){last_segment(spool)->number, SEGMENT_HEADER_BYTES,
                                             last_segment(spool)->first_serial};
    if (spool->next_serial > spool->cursor.serial)
        spool->waiting_since = clock_ms();
    return true;
}

bool spool_open(struct spool *spool, int folder, uint64_t limit, bool is_blocking)
{
    struct recovery recovery = {0};
    bool is_open;

    if (!init(spool, folder, limit, is_blocking)) {
        report("spool_error", "the spool can't be opened", ENOMEM);
        return false;
    }
    is_open = recovery_run(&recovery, folder, true) && adopt(spool, &recovery);
    if (!is_open)
        report("spool_error", "the spool can't be opened", errno);
    recovery_free(&recovery);
    return is_open;
}

void spool_close(struct spool *spool)
{
    if (spool->file >= 0)
        close(spool->file);
    close(spool->folder);
    free(spool->segments);
    free(spool->pending);
    pthread_cond_destroy(&spool->changed);
    pthread_mutex_destroy(&spool->lock);
}

static int64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

enum spool_verdict spool_append(struct spool *spool, const char *text, size_t length,
                                const struct position *position)
{
    struct record record = {
        .flags = text == NULL ? 0 : RECORD_EVENT,
        .serial = spool->pending_serial,
        .time_ms = wall_ms(),
        .position = *position,
        .text = text,
        .length = length,
    };

    /* The position of a file that was followed before stays while a stream is read. */
    if (position->inode == 0)
        record.position = spool->pending_position;
    if (record_size(length) > SPOOL_PENDING_BYTES - spool->pending_length) {
        enum spool_verdict verdict = spool_flush(spool);

        if (verdict != SPOOL_WRITTEN)
            return verdict;
    }
    /* Nothing lies between it and what is on the disk. */
    if (spool->pending_length == 0 && !spool_is_dirty(spool))
        record.flags |= RECORD_SYNCED;
    record_encode(&record, spool->pending + spool->pending_length);
    spool->pending_length += record_size(length);
    spool->pending_position = record.position;
    if (text != NULL)
        spool->pending_serial++;
    return SPOOL_WRITTEN;
}

static uint64_t total_bytes(const struct spool *spool)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < spool->count; i++)
        bytes += spool->segments[i].bytes;
    return bytes;
}

/* Drops the oldest segment, with what waits in it; false where it is the only one. */
static bool drop_oldest(struct spool *spool)
{
    const struct spool_segment *next = &spool->segments[1];
    uint64_t number, first, lost = 0;
    struct log_line line;

    pthread_mutex_lock(&spool->lock);
    if (spool->count < 2) {
        pthread_mutex_unlock(&spool->lock);
        return false;
    }
    number = spool->segments[0].number;
    first = spool->cursor.serial > spool->taken ? spool->cursor.serial : spool->taken;
    if (spool->cursor.segment == number) {
        if (next->first_serial > first)
            lost = next->first_serial - first;
        spool->cursor =
            (struct spool_place){next->number, SEGMENT_HEADER_BYTES, next->first_serial};
    }
    spool->dropped += lost;
    spool->count--;
    memmove(spool->segments, spool->segments + 1, spool->count * sizeof(*spool->segments));
    pthread_mutex_unlock(&spool->lock);
    remove_segments(spool, &number, 1);
    if (lost > 0) {
        log_begin(&line, LOG_ERROR, "spool_dropped");
        log_number(&line, "events", (long long)lost);
        log_string(&line, "detail", "the spool is full; its oldest events are lost");
        log_end(&line);
    }
    return true;
}

/* Sees to it that what is pending fits; *end is where it is to be written. */
static enum spool_verdict make_room(struct spool *spool, off_t *end)
{
    for (;;) {
        bool is_full, is_last_full;

        pthread_mutex_lock(&spool->lock);
        *end = (off_t)last_segment(spool)->bytes;
        is_full = total_bytes(spool) + spool->pending_length > spool->limit;
        is_last_full = (uint64_t)*end + spool->pending_length > spool->segment_bytes &&
                       (uint64_t)*end > empty_bytes();
        pthread_mutex_unlock(&spool->lock);
        if (is_full && spool->is_blocking)
            return SPOOL_FULL;
        if (is_last_full || spool->must_rotate) {
            if (!rotate(spool))
                return SPOOL_FAILED;
            continue;
        }
        if (!is_full || !drop_oldest(spool))
            return SPOOL_WRITTEN;
    }
}

/* On a full disk, what was sent already can make room: it may all be in the last segment. */
static void shed(struct spool *spool)
{
    struct spool_place place;
    bool is_done;

    pthread_mutex_lock(&spool->lock);
    is_done = spool->cursor.serial == spool->next_serial &&
              last_segment(spool)->bytes > spool->segment_bytes / 2;
    pthread_mutex_unlock(&spool->lock);
    if (!is_done || !rotate(spool))
        return;
    pthread_mutex_lock(&spool->lock);
    place =
        (struct spool_place){last_segment(spool)->number, SEGMENT_HEADER_BYTES, spool->next_serial};
    pthread_mutex_unlock(&spool->lock);
    spool_forget(spool, &place, 0);
}

enum spool_verdict spool_flush(struct spool *spool)
{
    enum spool_verdict verdict;
    off_t end;

    if (spool->pending_length == 0)
        return SPOOL_WRITTEN;
    verdict = make_room(spool, &end);
    if (verdict != SPOOL_WRITTEN)
        return verdict;
    if (!files_write(spool->file, spool->pending, spool->pending_length, end)) {
        int error = errno;

        shed(spool);
        errno = error;
        return SPOOL_FAILED;
    }

    pthread_mutex_lock(&spool->lock);
    last_segment(spool)->bytes += spool->pending_length;
    if (spool->waiting_since == 0 && spool->pending_serial > spool->next_serial)
        spool->waiting_since = clock_ms();
    spool->next_serial = spool->pending_serial;
    pthread_cond_signal(&spool->changed);
    pthread_mutex_unlock(&spool->lock);
    spool->position = spool->pending_position;
    spool->pending_length = 0;
    return SPOOL_WRITTEN;
}

bool spool_is_dirty(struct spool *spool)
{
    bool is_dirty;

    pthread_mutex_lock(&spool->lock);
    is_dirty = spool->synced < last_segment(spool)->bytes;
    pthread_mutex_unlock(&spool->lock);
    return is_dirty;
}

bool spool_sync(struct spool *spool)
{
    uint64_t number, end;
    int file;
    bool is_synced;

    pthread_mutex_lock(&spool->lock);
    if (spool->count == 0 || spool->synced >= last_segment(spool)->bytes) {
        pthread_mutex_unlock(&spool->lock);
        return true;
    }
    number = last_segment(spool)->number;
    end = last_segment(spool)->bytes;
    file = dup(spool->file);
    pthread_mutex_unlock(&spool->lock);

    is_synced = file >= 0 && fdatasync(file) == 0;
    if (!is_synced)
        report("spool_error", "events can't be brought to the disk", errno);
    if (file >= 0)
        close(file);

    pthread_mutex_lock(&spool->lock);
    if (is_synced && last_segment(spool)->number == number && spool->synced < end)
        spool->synced = end;
    pthread_mutex_unlock(&spool->lock);
    return is_synced;
}

uint64_t spool_waiting(struct spool *spool)
{
    uint64_t waiting;

    pthread_mutex_lock(&spool->lock);
    waiting = spool->next_serial - spool->cursor.serial;
    pthread_mutex_unlock(&spool->lock);
    return waiting;
}

uint64_t spool_dropped(struct spool *spool)
{
    uint64_t dropped;

    pthread_mutex_lock(&spool->lock);
    dropped = spool->dropped;
    pthread_mutex_unlock(&spool->lock);
    return dropped;
}

struct spool_place spool_begin(struct spool *spool)
{
    struct spool_place place;

    pthread_mutex_lock(&spool->lock);
    place = spool->cursor;
    pthread_mutex_unlock(&spool->lock);
    return place;
}

bool spool_extent(struct spool *spool, uint64_t number, struct spool_extent *extent)
{
    bool is_there = false;

    pthread_mutex_lock(&spool->lock);
    for (size_t i = 0; i < spool->count && !is_there; i++) {
        if (spool->segments[i].number != number)
            continue;
        is_there = true;
        *extent = (struct spool_extent){.end = spool->segments[i].bytes,
                                        .next_serial = spool->next_serial};
        if (i + 1 < spool->count) {
            extent->next = spool->segments[i + 1].number;
            extent->next_serial = spool->segments[i + 1].first_serial;
        }
    }
    pthread_mutex_unlock(&spool->lock);
    return is_there;
}

void spool_hold(struct spool *spool, uint64_t serial)
{
    pthread_mutex_lock(&spool->lock);
    spool->taken = serial;
    pthread_mutex_unlock(&spool->lock);
}

void spool_forget(struct spool *spool, const struct spool_place *place, uint64_t sent)
{
    struct cursor cursor;
    uint64_t numbers[SEGMENTS];
    size_t count = 0;

    pthread_mutex_lock(&spool->lock);
    if (place->serial >= spool->cursor.serial && place->segment >= spool->cursor.segment)
        spool->cursor = *place;
    spool->sent += sent;
    if (spool->cursor.serial == spool->next_serial)
        spool->waiting_since = 0;
    while (spool->segments[count].number < spool->cursor.segment && count < SEGMENTS) {
        numbers[count] = spool->segments[count].number;
        count++;
    }
    spool->count -= count;
    memmove(spool->segments, spool->segments + count, spool->count * sizeof(*spool->segments));
    cursor = (struct cursor){spool->cursor, spool->sent};
    pthread_mutex_unlock(&spool->lock);

    /* Should this fail, the events are sent once more after a crash: their ids make that harmless.
     */
    if (!cursor_write(spool->folder, &cursor))
        report("spool_error", "the cursor can't be written", errno);
    remove_segments(spool, numbers, count);
}
