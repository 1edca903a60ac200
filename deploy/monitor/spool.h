/*
 * The spool: events on the disk between their arrival and the server's answer.
 *
 * One thread appends, another takes away; nothing else touches the folder
 * while they do. An event counts as accepted once spool_flush has written it:
 * it is then safe from the end of the process, and after spool_sync from a
 * power cut. It is bounded in bytes; how much waits doesn't matter to memory.
 *
 * A cursor, in a file of its own, is the place of the oldest event that waits.
 * Segments behind it are removed.
 */
#ifndef STEEP_SPOOL_H
#define STEEP_SPOOL_H

#include "base/error.h"
#include "position.h"
#include "segment.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPOOL_PENDING_BYTES = 2 * RECORD_BYTES };

/* A place between two records. */
struct spool_place {
    uint64_t segment;
    uint64_t offset;
    uint64_t serial; /* of the event that follows */
};

struct spool_segment {
    uint64_t number;
    uint64_t first_serial;
    uint64_t bytes;
};

struct spool {
    /* What the writer alone touches. */
    int folder;
    uint64_t limit; /* bytes */
    uint64_t segment_bytes;
    bool is_blocking;       /* wait when full, instead of dropping the oldest */
    unsigned char *pending; /* encoded, not yet written */
    size_t pending_length;
    uint64_t pending_serial; /* of the next event to be encoded */
    struct position pending_position;
    struct position position; /* behind what was written */

    pthread_mutex_t forgetting; /* held over the lock, while the cursor's file is replaced */

    /* What the lock guards. */
    pthread_mutex_t lock;
    pthread_cond_t
        changed; /* on the monotonic clock; something was written, or asked of the reader */
    int file;    /* the last segment's */
    struct spool_segment *segments; /* oldest first; the last is the one that is written */
    size_t count;
    size_t room;
    bool must_rotate;     /* the last segment's file failed */
    uint64_t synced;      /* bytes of the last segment known to be on the disk */
    uint64_t next_serial; /* of the next event to be written */
    struct spool_place cursor;
    uint64_t taken;        /* serial of the first event that the reader has in memory */
    uint64_t sent;         /* events in all, over the spool's life */
    uint64_t dropped;      /* events in all, by this process */
    int64_t waiting_since; /* clock_ms of the first event that waits, or 0 */
};

enum spool_verdict {
    SPOOL_WRITTEN,
    SPOOL_FULL,   /* and it is to wait */
    SPOOL_FAILED, /* the disk is full or broken, see errno */
};

/*
 * Opens the spool in a folder, of which it takes the descriptor, and mends
 * what a crash has left: a torn end is cut off. False after a line in the log.
 */
bool spool_open(struct spool *spool, int folder, uint64_t limit, bool is_blocking) MUST_CHECK;

/* Writes nothing; what was not flushed is lost. */
void spool_close(struct spool *spool);

/*
 * Adds an event, or without text just the position behind a line. The verdict
 * is about room in memory, which is made by a flush: after anything but
 * SPOOL_WRITTEN the event was not taken, and is to be given again later.
 */
enum spool_verdict spool_append(struct spool *spool, const char *text, size_t length,
                                const struct position *position) MUST_CHECK;

/* Writes what was added. After a failure it stays, and the next flush tries again. */
enum spool_verdict spool_flush(struct spool *spool) MUST_CHECK;

/* Whether something is written that is not known to be on the disk. */
bool spool_is_dirty(struct spool *spool);

/* Brings all that is written to the disk; any thread. False after a line in the log. */
bool spool_sync(struct spool *spool);

/* How many events wait, by what is written. */
uint64_t spool_waiting(struct spool *spool);

/* How many events this process has dropped. */
uint64_t spool_dropped(struct spool *spool);

/* Where reading is to begin; notes that the reader has what is there. */
struct spool_place spool_take(struct spool *spool);

/* How far a segment may be read, and what follows. */
struct spool_extent {
    uint64_t end;
    uint64_t next;        /* the next segment's number; 0 where there is none yet */
    uint64_t next_serial; /* of the event behind the end */
};

/* False where the segment was dropped. */
bool spool_extent(struct spool *spool, uint64_t number, struct spool_extent *extent) MUST_CHECK;

/*
 * Forgets all that was taken, up to a place; sent of the events were stored.
 * Those that were dropped meanwhile no longer count as dropped. Any thread.
 */
void spool_forget(struct spool *spool, const struct spool_place *place, uint64_t sent);

#endif
