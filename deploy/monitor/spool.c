#include "spool.h"

#include "base/clock.h"
#include "base/log.h"
#include "cursor.h"
#include "files.h"
#include "recovery.h"
#include "spool_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SEGMENT_MIN = 256 * 1024;
static const uint64_t SEGMENT_MAX = 16 * 1024 * 1024;

enum { SEGMENTS = 16 }; /* that a full spool is made of, unless they would be too small or large */

/* What a new segment has already: its header and the position. */
static uint64_t empty_bytes(void)
{
    return SEGMENT_HEADER_BYTES + record_size(0);
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
    if (spool->segment_bytes < SEGMENT_MIN)
        spool->segment_bytes = SEGMENT_MIN;
    if (spool->segment_bytes > SEGMENT_MAX)
        spool->segment_bytes = SEGMENT_MAX;
    pthread_mutex_init(&spool->forgetting, NULL);
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
        segment.number = spool_last(spool)->number + 1;
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
    spool->must_rotate = false;
    pthread_mutex_unlock(&spool->lock);
    if (old >= 0)
        close(old);
    return true;
}

/* Takes over what recovery has found, and goes on in the last segment. */
static bool adopt(struct spool *spool, struct recovery *recovery)
{
    struct spool_extent ignored;

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

        segment_name(spool_last(spool)->number, name);
        spool->file = openat(spool->folder, name, O_RDWR | O_CLOEXEC);
        if (spool->file < 0 || ftruncate(spool->file, (off_t)spool_last(spool)->bytes) != 0)
            return false;
        if (fdatasync(spool->file) == 0)
            spool->synced = spool_last(spool)->bytes;
    } else if (!rotate(spool)) {
        return false;
    }
    /* Its segment may be lost, behind others that are still there. */
    if (!spool_extent(spool, spool->cursor.segment, &ignored))
        spool->cursor = (struct spool_place){spool_last(spool)->number, SEGMENT_HEADER_BYTES,
                                             spool_last(spool)->first_serial};
    if (spool->next_serial > spool->cursor.serial)
        spool->waiting_since = clock_ms();
    return true;
}

bool spool_open(struct spool *spool, int folder, uint64_t limit, bool is_blocking)
{
    struct recovery recovery = {0};
    bool is_open;

    if (!init(spool, folder, limit, is_blocking)) {
        spool_report("cannot open the spool", ENOMEM);
        return false;
    }
    is_open = recovery_run(&recovery, folder, true) && adopt(spool, &recovery);
    if (!is_open)
        spool_report("cannot open the spool", errno);
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
    pthread_mutex_destroy(&spool->forgetting);
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
        .flags = (uint8_t)((text == NULL ? 0 : RECORD_EVENT) |
                           (position->inode == 0 ? 0 : RECORD_FOLLOWED)),
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
    uint64_t number, lost = 0;
    struct log_line line;

    pthread_mutex_lock(&spool->lock);
    if (spool->count < 2) {
        pthread_mutex_unlock(&spool->lock);
        return false;
    }
    number = spool->segments[0].number;
    if (spool->cursor.segment == number) {
        lost = next->first_serial - spool->cursor.serial;
        spool->cursor =
            (struct spool_place){next->number, SEGMENT_HEADER_BYTES, next->first_serial};
    }
    spool->dropped += lost;
    spool->count--;
    memmove(spool->segments, spool->segments + 1, spool->count * sizeof(*spool->segments));
    pthread_mutex_unlock(&spool->lock);
    spool_remove(spool, &number, 1);
    if (lost > 0) {
        log_begin(&line, LOG_ERROR, "spool_dropped");
        log_number(&line, "events", (long long)lost);
        log_string(&line, "detail", "the spool is full, dropped its oldest events");
        log_end(&line);
    }
    return true;
}

/* Sees to it that what is pending fits; *end is where it is to be written. */
static enum spool_verdict make_room(struct spool *spool, off_t *end)
{
    for (;;) {
        bool is_full, must_rotate;

        pthread_mutex_lock(&spool->lock);
        *end = (off_t)spool_last(spool)->bytes;
        is_full = total_bytes(spool) + spool->pending_length > spool->limit;
        must_rotate =
            spool->must_rotate || ((uint64_t)*end + spool->pending_length > spool->segment_bytes &&
                                   (uint64_t)*end > empty_bytes());
        pthread_mutex_unlock(&spool->lock);
        if (is_full && spool->is_blocking)
            return SPOOL_FULL;
        if (must_rotate) {
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
    is_done =
        spool->cursor.serial == spool->next_serial && spool_last(spool)->bytes > empty_bytes();
    pthread_mutex_unlock(&spool->lock);
    if (!is_done || !rotate(spool))
        return;
    pthread_mutex_lock(&spool->lock);
    place =
        (struct spool_place){spool_last(spool)->number, SEGMENT_HEADER_BYTES, spool->next_serial};
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

        /* What of it was written would leave no room for the cursor. */
        (void)!ftruncate(spool->file, end);
        shed(spool);
        errno = error;
        return SPOOL_FAILED;
    }

    pthread_mutex_lock(&spool->lock);
    spool_last(spool)->bytes += spool->pending_length;
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
    is_dirty = spool->synced < spool_last(spool)->bytes;
    pthread_mutex_unlock(&spool->lock);
    return is_dirty;
}

bool spool_sync(struct spool *spool)
{
    uint64_t number, end;
    int file;
    bool is_synced;

    pthread_mutex_lock(&spool->lock);
    if (spool->count == 0 || spool->synced >= spool_last(spool)->bytes) {
        pthread_mutex_unlock(&spool->lock);
        return true;
    }
    number = spool_last(spool)->number;
    end = spool_last(spool)->bytes;
    file = dup(spool->file);
    pthread_mutex_unlock(&spool->lock);

    is_synced = file >= 0 && fdatasync(file) == 0;
    if (!is_synced)
        spool_report("cannot sync the spool to disk", errno);
    if (file >= 0)
        close(file);

    pthread_mutex_lock(&spool->lock);
    if (spool_last(spool)->number == number) {
        /* What a file has lost once, a second try may call written (Linux forgets the error). */
        if (!is_synced)
            spool->must_rotate = true;
        if (spool->synced < end)
            spool->synced = end;
    }
    pthread_mutex_unlock(&spool->lock);
    return is_synced;
}
