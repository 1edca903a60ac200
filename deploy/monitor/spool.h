/*
 * The spool: what is kept on disk between the arrival of events and the
 * server's answer, in the state folder's database (store.h).
 *
 * The main thread adds events, which are kept in memory until a flush commits
 * them with the positions in the followed files. An event counts as taken once
 * it is committed: it then survives a kill and a power failure. The sender
 * loads pending events and settles them by the server's answer. The lock is
 * held for one transaction at a time.
 *
 * Events wait in lanes: one for those whose source is filled in when they are
 * sent, one for each source that is written in them, and the same for events that
 * were read before the clock was set. Each lane is sent by itself.
 */
#ifndef STEEP_SPOOL_H
#define STEEP_SPOOL_H

#include "answer.h"
#include "complete.h"
#include "moment.h"
#include "outgoing.h"
#include "position.h"
#include "store.h"

#include <pthread.h>

struct lane {
    int64_t id;
    char source[COMPLETE_SOURCE_BYTES + 1]; /* in the events; empty: filled in */
    char name[COMPLETE_SOURCE_BYTES + 1];   /* under which they are sent */
    char boot[MOMENT_BOOT_BYTES + 1];       /* empty: they have a timestamp */
    int64_t began;                          /* when that boot began, in ms since 1970; or 0 */
    int64_t waiting, accepted;              /* events; batches */
};

enum {
    SPOOL_POSITIONS = 16, /* followed files: the current one, and rotated ones */
    SPOOL_MARKS = 16,
};

/* A place in what was added up to which it can be committed alone. */
struct spool_mark {
    size_t length;
    size_t count;
    struct position positions[SPOOL_POSITIONS];
};

struct spool {
    const char *folder;
    const char *name; /* fills in the source */
    uint64_t limit;   /* bytes */
    bool is_blocking; /* wait when full, instead of dropping the oldest */
    int journal_pages;
    char boot[MOMENT_BOOT_BYTES + 1];

    /* What the main thread alone uses. */
    char *added;
    size_t added_length, added_room;
    struct spool_mark marks[SPOOL_MARKS];
    size_t mark_count;
    size_t followed;               /* positions of the last flush */
    char pause[SQL_PROBLEM_BYTES]; /* why the last flush failed */

    pthread_mutex_t lock;            /* guards all that follows */
    pthread_cond_t changed;          /* monotonic: events were added, or a request to the sender */
    sqlite3 *database;               /* NULL after damage that could not be recovered from yet */
    int64_t open_at;                 /* clock_ms: when to try that again */
    int64_t last_serial;             /* given to an event */
    char problem[SQL_PROBLEM_BYTES]; /* why the last transaction failed */
};

/* What is added: an event, or if it has an error a rejected line. */
struct spool_item {
    enum error error;
    bool has_source, has_timestamp;
    int64_t time; /* when it was read, in ms since 1970, or without a timestamp since the boot */
    uint64_t line;
    const char *text;
    size_t length;
};

enum spool_verdict {
    SPOOL_TAKEN,
    SPOOL_FULL,   /* and it blocks */
    SPOOL_FAILED, /* see pause */
};

/*
 * Opens the spool in a folder, for events that are sent under a name; both outlive
 * it. False after a line in the log. spool_close loses what was not flushed.
 */
bool spool_open(struct spool *spool, const char *folder, const char *name, uint64_t limit,
                bool is_blocking) MUST_CHECK;
void spool_close(struct spool *spool);

/* Adds an item; false if there is no room for it before the next flush. */
bool spool_add(struct spool *spool, const struct spool_item *item) MUST_CHECK;

/*
 * Tells where in the followed files the next item begins, at most SPOOL_POSITIONS: on a disk
 * without room for all that was added, a flush commits what is before it.
 */
void spool_mark(struct spool *spool, const struct position *positions, size_t count);

/*
 * Commits what was added, with the positions behind it, in a transaction. After
 * anything but SPOOL_TAKEN nothing is lost; try again later: there may be room on the disk
 * for the rest once the sender has removed what was committed. is_last: even if the spool is
 * full and blocks.
 */
enum spool_verdict spool_flush(struct spool *spool, const struct position *positions, size_t count,
                               bool is_last) MUST_CHECK;

/* Reads up to max positions of the last flush; returns their number. */
size_t spool_positions(struct spool *spool, struct position *positions, size_t max);

/* How many events wait in all. */
uint64_t spool_waiting(struct spool *spool);

/*
 * Reads the next lane in which events wait, by id. Call with the lock held. Returns 1, 0 if
 * there is none, or -1 after a failure.
 */
int spool_next_lane(struct spool *spool, int64_t after, struct lane *lane) MUST_CHECK;

/*
 * Loads events of a lane from a serial on: at most max, and 1 MiB. One that was refused
 * before comes alone. False after a line in the log.
 */
bool spool_load(struct spool *spool, struct lane *lane, int64_t from, size_t max,
                struct outgoing *outgoing) MUST_CHECK;

/*
 * Records an answer, with its description, and what it means for the batch: removes
 * stored events, moves those that it lists to the rejected ones, and marks one that was
 * refused alone. False, and nothing is changed, if it can't be committed.
 */
bool spool_settle(struct spool *spool, const struct lane *lane, const struct outgoing *outgoing,
                  const struct answer *answer, const char *detail) MUST_CHECK;

/* Whether the database is open, or could be opened now; call with the lock held. */
bool spool_is_open(struct spool *spool);

/*
 * For both halves, with the lock held: begins a transaction; ends it, undoing all
 * of it unless is_done. False, with the problem, if it was undone or can't begin; then a
 * damaged database is replaced.
 */
bool spool_begin(struct spool *spool) MUST_CHECK;
bool spool_end(struct spool *spool, bool is_done) MUST_CHECK;

/* In a transaction: drops the oldest rejected events beyond their limit, and counts them. */
bool spool_forget_rejected(struct spool *spool, int64_t *forgotten) MUST_CHECK;

/* Logs how many events were dropped, if there are any. */
void spool_report_loss(const char *event, int64_t events, const char *detail);

/*
 * Behind a transaction: gives space back once nothing waits, or if the file is larger than
 * the limit, and empties a journal that could fill up the disk. A failure only delays it.
 */
void spool_tidy(struct spool *spool);

#endif
