#include "base/clock.h"
#include "base/log.h"
#include "cursor.h"
#include "spool_parts.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { REMOVED = 16 }; /* segments at a time; what is left goes with the next batch */

struct spool_segment *spool_last(struct spool *spool)
{
    return &spool->segments[spool->count - 1];
}

void spool_report(const char *detail, int error)
{
    struct log_line line;

    log_begin(&line, LOG_ERROR, "spool_error");
    log_string(&line, "detail", detail);
    log_string(&line, "error", strerror(error));
    log_end(&line);
}

void spool_remove(struct spool *spool, const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char name[SEGMENT_NAME_BYTES + 1];

        segment_name(numbers[i], name);
        if (unlinkat(spool->folder, name, 0) != 0 && errno != ENOENT)
            spool_report("cannot remove a segment", errno);
    }
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

struct spool_place spool_take(struct spool *spool)
{
    struct spool_place place;

    pthread_mutex_lock(&spool->lock);
    place = spool->cursor;
    spool->taken = place.serial;
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

void spool_forget(struct spool *spool, const struct spool_place *place, uint64_t sent)
{
    struct cursor cursor;
    uint64_t known, numbers[REMOVED];
    size_t count = 0;

    pthread_mutex_lock(&spool->forgetting);
    pthread_mutex_lock(&spool->lock);
    known = place->serial < spool->cursor.serial ? place->serial : spool->cursor.serial;
    if (known > spool->taken)
        spool->dropped -= known - spool->taken;
    if (place->serial >= spool->cursor.serial && place->segment >= spool->cursor.segment)
        spool->cursor = *place;
    spool->taken = spool->cursor.serial;
    spool->sent += sent;
    /* Those that wait now came while others were sent. */
    spool->waiting_since = spool->cursor.serial == spool->next_serial ? 0 : clock_ms();
    while (count < REMOVED && spool->segments[count].number < spool->cursor.segment) {
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
        spool_report("cannot write the cursor", errno);
    pthread_mutex_unlock(&spool->forgetting);
    spool_remove(spool, numbers, count);
}
