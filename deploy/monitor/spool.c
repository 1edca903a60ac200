#include "spool.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum {
    SHARES = 16, /* of the spool: what is dropped at once */
    MIN_ADDED_BYTES = 128 * 1024,
    MAX_ADDED_BYTES = 1024 * 1024,
    MARKED_BYTES = MAX_ADDED_BYTES / SPOOL_MARKS, /* at least, between two marks */
    MIN_JOURNAL_BYTES = 64 * 1024,
    MAX_JOURNAL_BYTES = 16 * 1024 * 1024,
    MAX_KEPT_BYTES = 32 * 1024 * 1024, /* of rejected events, and an eighth of the spool */
    KEPT_SHARES = 8,
    RESERVED_BYTES = 256 * 1024,
    BATCH_BYTES = OUTGOING_BODY_BYTES * 5 / 4, /* which the removal of a batch writes at most */
    DROPPED_ROWS = 16384,                      /* at most, in one step */
    OPEN_RETRY_MS = 30 * 1000,
};

/* What was added: this header, the text, and padding for the next. */
struct added {
    struct spool_item item;
    size_t size;
};

/* What a flush has written so far. */
struct flush {
    size_t length; /* of what was added: what it commits */
    sqlite3_stmt *insert;
    int64_t serial;
    int64_t lanes[2][2], counts[2][2]; /* by has_source and has_timestamp; 0: not yet looked up */
    int64_t rejected, forgotten, dropped;
};

static int64_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
    return (int64_t)(value < min ? min : value > max ? max : value);
}

/* Finds the last serial that was given to an event, here or by the command "rejected retry". */
static void find_last_serial(struct spool *spool)
{
    const int64_t serial =
        sql_number(spool->database, "SELECT max(serial, (SELECT coalesce(max(serial), 0)"
                                    " FROM events)) FROM totals");

    if (serial > spool->last_serial)
        spool->last_serial = serial;
}

/* Opens the database, and names its lanes. False after a line in the log. */
static bool open_database(struct spool *spool)
{
    spool->database = store_open(spool->folder, spool->journal_pages);
    spool->open_at = clock_ms() + OPEN_RETRY_MS;
    if (spool->database == NULL)
        return false;
    /* After damage, the serials of a batch that is being sent are not given again. */
    find_last_serial(spool);
    if (sql_change(spool->database, "UPDATE totals SET serial = ?", "i", spool->last_serial) &&
        sql_change(spool->database, "UPDATE lanes SET name = iif(source = '', ?, source)", "s",
                   spool->name))
        return true;
    sql_problem(spool->database, spool->problem);
    log_event(LOG_ERROR, "spool_error", spool->problem);
    sqlite3_close(spool->database);
    spool->database = NULL;
    return false;
}

/* Undoes the transaction that is open; false. */
static bool fail(struct spool *spool)
{
    bool is_full, is_damaged;

    if (spool->database == NULL) {
        snprintf(spool->problem, sizeof(spool->problem), "the database can't be opened");
        return false;
    }
    sql_problem(spool->database, spool->problem);
    is_full = (sqlite3_errcode(spool->database) & 0xff) == SQLITE_FULL;
    is_damaged = sql_is_damaged(spool->database);
    if (sqlite3_get_autocommit(spool->database) == 0)
        (void)!sql_run(spool->database, "ROLLBACK");
    if (is_full)
        store_empty_journal(spool->database);
    if (is_damaged) {
        sqlite3_close(spool->database);
        spool->database = NULL;
        (void)!open_database(spool);
    }
    return false;
}

bool spool_is_open(struct spool *spool)
{
    return spool->database != NULL || (clock_ms() >= spool->open_at && open_database(spool));
}

bool spool_begin(struct spool *spool)
{
    return spool_is_open(spool) && sql_run(spool->database, "BEGIN IMMEDIATE") ? true : fail(spool);
}

static int64_t count_pages(struct spool *spool, bool is_free)
{
    return sql_number(spool->database, is_free ? "PRAGMA freelist_count" : "PRAGMA page_count");
}

static uint64_t free_bytes(const struct spool *spool)
{
    struct statvfs disk;

    return statvfs(spool->folder, &disk) != 0 ? UINT64_MAX
                                              : (uint64_t)disk.f_bavail * disk.f_frsize;
}

/*
 * Before a commit: allocates the pages in the file that the database grows by, if they fit beside
 * the journal. A reader can keep the journal from being emptied; once it is gone, copying the
 * journal takes no room, however full the disk has become meanwhile.
 */
static void allocate(struct spool *spool)
{
    sqlite3_int64 size = count_pages(spool, false) * STORE_PAGE_BYTES;
    struct stat file;

    if (stat(sqlite3_db_filename(spool->database, "main"), &file) == 0 && size > file.st_size &&
        free_bytes(spool) >= 2 * (uint64_t)(size - file.st_size))
        sqlite3_file_control(spool->database, "main", SQLITE_FCNTL_SIZE_HINT, &size);
}

bool spool_end(struct spool *spool, bool is_done)
{
    if (is_done)
        allocate(spool);
    return is_done && sql_run(spool->database, "COMMIT") ? true : fail(spool);
}

bool spool_open(struct spool *spool, const char *folder, const char *name, uint64_t limit,
                bool is_blocking)
{
    pthread_condattr_t attributes;

    *spool = (struct spool){
        .folder = folder,
        .name = name,
        .limit = limit,
        .is_blocking = is_blocking,
        .journal_pages =
            (int)(clamp(limit / SHARES, MIN_JOURNAL_BYTES, MAX_JOURNAL_BYTES) / STORE_PAGE_BYTES),
        .added_room = (size_t)clamp(limit / SHARES, MIN_ADDED_BYTES, MAX_ADDED_BYTES),
    };
    moment_boot(spool->boot);
    pthread_mutex_init(&spool->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&spool->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    spool->added = malloc(spool->added_room);
    if (spool->added == NULL || !open_database(spool))
        return false;
    (void)!sql_run(spool->database, "DELETE FROM lanes WHERE waiting = 0 AND id > 1 AND (source,"
                                    " boot) NOT IN (SELECT source, boot FROM rejected)");
    return true;
}

void spool_close(struct spool *spool)
{
    sqlite3_close(spool->database);
    free(spool->added);
    pthread_cond_destroy(&spool->changed);
    pthread_mutex_destroy(&spool->lock);
}

bool spool_add(struct spool *spool, const struct spool_item *item)
{
    const size_t align = _Alignof(struct added);
    struct added added = {.item = *item};
    char *to = spool->added + spool->added_length;

    added.size = (sizeof(added) + item->length + align - 1) / align * align;
    if (added.size > spool->added_room - spool->added_length)
        return false;
    memcpy(to, &added, sizeof(added));
    memcpy(to + sizeof(added), item->text, item->length);
    spool->added_length += added.size;
    return true;
}

void spool_mark(struct spool *spool, const struct position *positions, size_t count)
{
    const size_t last = spool->mark_count == 0 ? 0 : spool->marks[spool->mark_count - 1].length;
    struct spool_mark *mark = &spool->marks[spool->mark_count];

    if (spool->added_length < last + MARKED_BYTES || spool->mark_count == SPOOL_MARKS)
        return;
    mark->length = spool->added_length;
    mark->count = count;
    memcpy(mark->positions, positions, count * sizeof(*positions));
    spool->mark_count++;
}

/* Removes from what was added the items up to a length, which is that of a mark or of all. */
static void remove_added(struct spool *spool, size_t length)
{
    size_t kept = 0;

    spool->added_length -= length;
    memmove(spool->added, spool->added + length, spool->added_length);
    for (size_t i = 0; i < spool->mark_count; i++) {
        if (spool->marks[i].length <= length)
            continue;
        spool->marks[kept] = spool->marks[i];
        spool->marks[kept++].length -= length;
    }
    spool->mark_count = kept;
}

/* Finds an event's lane, or makes it; 0 if it can't. */
static int64_t find_lane(struct spool *spool, const struct spool_item *item)
{
    const char *source = item->has_source ? spool->name : "";
    const char *boot = item->has_timestamp ? "" : spool->boot;
    sqlite3_stmt *query;
    int64_t lane = 0;

    if (!sql_change(spool->database,
                    "INSERT OR IGNORE INTO lanes (source, boot, name) VALUES (?, ?, ?)", "sss",
                    source, boot, spool->name))
        return 0;
    query = sql_prepare(spool->database, "SELECT id FROM lanes WHERE source = ? AND boot = ?", "ss",
                        source, boot);
    if (sqlite3_step(query) == SQLITE_ROW)
        lane = sqlite3_column_int64(query, 0);
    sqlite3_finalize(query);
    return lane;
}

static bool write_item(struct spool *spool, const struct spool_item *item, const char *text,
                       struct flush *flush)
{
    int64_t *lane = &flush->lanes[item->has_source][item->has_timestamp];

    if (item->error != ERROR_NONE) {
        flush->rejected++;
        return sql_change(
            spool->database,
            "INSERT INTO rejected (source, boot, time, text, line, code, message, rejected_at)"
            " VALUES ('', '', ?1, ?2, ?3, ?4, ?5, ?6)",
            "ibissi", item->time, text, item->length, (int64_t)item->line,
            complete_error_code(item->error), complete_error_message(item->error), moment_now());
    }
    if (*lane == 0)
        *lane = find_lane(spool, item);
    if (*lane == 0)
        return false;
    flush->counts[item->has_source][item->has_timestamp]++;
    sql_bind(flush->insert, "iiib", ++flush->serial, *lane, item->time, text, item->length);
    return sqlite3_step(flush->insert) == SQLITE_DONE && sqlite3_reset(flush->insert) == SQLITE_OK;
}

static bool write_items(struct spool *spool, struct flush *flush)
{
    bool is_done = true;

    flush->insert = sql_prepare(
        spool->database, "INSERT INTO events (serial, lane, time, text) VALUES (?, ?, ?, ?)", "");
    for (size_t at = 0; at < flush->length && is_done;) {
        struct added added;

        memcpy(&added, spool->added + at, sizeof(added));
        is_done = write_item(spool, &added.item, spool->added + at + sizeof(added), flush);
        at += added.size;
    }
    sqlite3_finalize(flush->insert);
    return is_done;
}

bool spool_forget_rejected(struct spool *spool, int64_t *forgotten)
{
    const int64_t limit = clamp(spool->limit / KEPT_SHARES, 0, MAX_KEPT_BYTES);

    while (sql_number(spool->database, "SELECT kept_bytes FROM totals") > limit) {
        if (!sql_run(spool->database, "DELETE FROM rejected WHERE serial IN"
                                      " (SELECT serial FROM rejected ORDER BY serial LIMIT 1 +"
                                      " (SELECT count(*) FROM (SELECT 1 FROM rejected"
                                      " LIMIT 16384)) / 16)"))
            return false;
        if (sqlite3_changes(spool->database) == 0)
            break; /* damage left a wrong count */
        *forgotten += sqlite3_changes(spool->database);
    }
    return true;
}

/* Drops a share of the events, the oldest. */
static bool drop_oldest(struct spool *spool, struct flush *flush)
{
    const int64_t waiting = sql_number(spool->database, "SELECT sum(waiting) FROM lanes");
    char last[96];
    int64_t serial;

    snprintf(last, sizeof(last),
             "SELECT max(serial) FROM (SELECT serial FROM events ORDER BY serial LIMIT %lld)",
             (long long)clamp((uint64_t)waiting / SHARES + 1, 1, DROPPED_ROWS));
    serial = sql_number(spool->database, last);
    if (serial == 0)
        return sqlite3_errcode(spool->database) == SQLITE_OK;
    if (!sql_change(spool->database,
                    "UPDATE lanes SET waiting = waiting - (SELECT count(*) FROM events"
                    " WHERE serial <= ? AND lane = lanes.id)",
                    "i", serial) ||
        !sql_change(spool->database, "DELETE FROM events WHERE serial <= ?", "i", serial))
        return false;
    flush->dropped += sqlite3_changes(spool->database);
    return true;
}

/* Sees to it that what the flush commits fits. */
static enum spool_verdict make_room(struct spool *spool, struct flush *flush)
{
    while ((uint64_t)(count_pages(spool, false) - count_pages(spool, true)) * STORE_PAGE_BYTES +
               flush->length >
           spool->limit) {
        const int64_t dropped = flush->dropped;

        if (spool->is_blocking)
            return SPOOL_FULL;
        if (!drop_oldest(spool, flush))
            return SPOOL_FAILED;
        if (flush->dropped == dropped)
            break; /* none are left */
    }
    return SPOOL_TAKEN;
}

static bool write_positions(struct spool *spool, const struct position *positions, size_t count)
{
    bool is_done = true;

    if (count == 0 && spool->followed == 0)
        return true; /* those of a file that was followed before stay */
    is_done = sql_run(spool->database, "DELETE FROM positions");
    for (size_t i = 0; i < count && is_done; i++)
        is_done = sql_change(spool->database, "INSERT INTO positions VALUES (?, ?, ?, ?, ?, ?)",
                             "iiiiii", (int64_t)positions[i].device, (int64_t)positions[i].inode,
                             (int64_t)positions[i].offset, (int64_t)positions[i].line,
                             (int64_t)positions[i].tail, positions[i].seen_ms);
    return is_done;
}

static bool write_counts(struct spool *spool, const struct flush *flush)
{
    bool is_done =
        sql_change(spool->database,
                   "UPDATE totals SET serial = ?, rejected = rejected + ?,"
                   " forgotten = forgotten + ?, dropped = dropped + ?",
                   "iiii", flush->serial, flush->rejected, flush->forgotten, flush->dropped);

    for (size_t i = 0; i < 4 && is_done; i++) {
        if (flush->counts[i / 2][i % 2] > 0)
            is_done =
                sql_change(spool->database, "UPDATE lanes SET waiting = waiting + ? WHERE id = ?",
                           "ii", flush->counts[i / 2][i % 2], flush->lanes[i / 2][i % 2]);
    }
    return is_done;
}

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/*
 * Finds out how much of what was added the disk has room for, in the journal and then in the
 * database, and for the sender to remove events after that: a disk that the spool filled up
 * would stay full. The last flush of a process may use what is reserved beyond that. *mark is the
 * last one before which everything fits, or NULL if all fits.
 */
static bool find_fitting(struct spool *spool, bool is_last, const struct spool_mark **mark)
{
    const uint64_t journal = (uint64_t)spool->journal_pages * STORE_PAGE_BYTES;
    const uint64_t reserved = is_last ? 0 : RESERVED_BYTES;
    uint64_t unused = 0, used = 0, room;

    *mark = NULL;
    if (free_bytes(spool) >= 2 * (spool->added_length + spool->added_length / 4) + RESERVED_BYTES +
                                 BATCH_BYTES + journal)
        return true;
    /* There may be room in the journal. */
    if (spool->database != NULL) {
        store_empty_journal(spool->database);
        unused = (uint64_t)count_pages(spool, true) * STORE_PAGE_BYTES;
        used = (uint64_t)count_pages(spool, false) * STORE_PAGE_BYTES - unused;
    }
    room = free_bytes(spool);
    for (size_t i = spool->mark_count + 1; i-- > 0;) {
        const size_t length = i < spool->mark_count ? spool->marks[i].length : spool->added_length;
        const uint64_t added = length + length / 4;

        *mark = i < spool->mark_count ? &spool->marks[i] : NULL;
        if (room >= 2 * added + reserved + least(used + added, BATCH_BYTES) - least(unused, added))
            return true;
    }
    snprintf(spool->problem, sizeof(spool->problem), "%s", strerror(ENOSPC));
    return false;
}

void spool_tidy(struct spool *spool)
{
    const int64_t most = (int64_t)(spool->limit + spool->limit / 16) / STORE_PAGE_BYTES;
    const bool is_large = count_pages(spool, false) > most;
    int64_t left = count_pages(spool, true);

    if ((is_large && left > 0) ||
        (left > spool->journal_pages &&
         sql_number(spool->database, "SELECT sum(waiting) FROM lanes") == 0)) {
        for (int64_t before = left + 1; left > 0 && left < before;) {
            before = left;
            (void)!sql_run(spool->database, "PRAGMA incremental_vacuum(1024)");
            left = count_pages(spool, true);
        }
        store_empty_journal(spool->database);
    } else if (free_bytes(spool) <
               RESERVED_BYTES + BATCH_BYTES + (uint64_t)spool->journal_pages * STORE_PAGE_BYTES) {
        store_empty_journal(spool->database);
    }
}

void spool_report_loss(const char *event, int64_t events, const char *detail)
{
    struct log_line line;

    if (events == 0)
        return;
    log_begin(&line, LOG_ERROR, event);
    log_number(&line, "events", events);
    log_string(&line, "detail", detail);
    log_end(&line);
}

/* All of a flush but the lock. */
static enum spool_verdict flush_added(struct spool *spool, const struct position *positions,
                                      size_t count, bool is_last)
{
    struct flush flush = {.length = spool->added_length};
    const struct spool_mark *mark = NULL;
    enum spool_verdict verdict;
    bool is_done, is_all;

    if (!find_fitting(spool, is_last, &mark) || !spool_begin(spool))
        return SPOOL_FAILED;
    is_all = mark == NULL;
    if (!is_all) {
        flush.length = mark->length;
        positions = mark->positions;
        count = mark->count;
    }
    find_last_serial(spool);
    flush.serial = spool->last_serial;
    verdict = is_last ? SPOOL_TAKEN : make_room(spool, &flush);
    is_done = verdict == SPOOL_TAKEN && write_items(spool, &flush) &&
              write_positions(spool, positions, count) &&
              (flush.rejected == 0 || spool_forget_rejected(spool, &flush.forgotten)) &&
              write_counts(spool, &flush);
    if (!spool_end(spool, is_done))
        return verdict == SPOOL_FULL ? SPOOL_FULL : SPOOL_FAILED;
    spool->last_serial = flush.serial;
    spool->followed = count;
    remove_added(spool, flush.length);
    spool_report_loss("spool_dropped", flush.dropped,
                      "the spool is full, dropped its oldest events");
    spool_report_loss("rejected_dropped", flush.forgotten,
                      "too many rejected events, dropped the oldest");
    if (flush.dropped > 0)
        spool_tidy(spool);
    if (is_all)
        return SPOOL_TAKEN;
    snprintf(spool->problem, sizeof(spool->problem), "%s", strerror(ENOSPC));
    return SPOOL_FAILED;
}

enum spool_verdict spool_flush(struct spool *spool, const struct position *positions, size_t count,
                               bool is_last)
{
    enum spool_verdict verdict;

    pthread_mutex_lock(&spool->lock);
    verdict = flush_added(spool, positions, count, is_last);
    pthread_cond_signal(&spool->changed);
    if (verdict != SPOOL_TAKEN)
        memcpy(spool->pause, spool->problem, sizeof(spool->pause));
    pthread_mutex_unlock(&spool->lock);
    return verdict;
}

size_t spool_positions(struct spool *spool, struct position *positions, size_t max)
{
    sqlite3_stmt *query =
        sql_prepare(spool->database, "SELECT * FROM positions ORDER BY rowid", "");
    size_t count = 0;

    while (count < max && sqlite3_step(query) == SQLITE_ROW) {
        positions[count++] = (struct position){.device = (uint64_t)sqlite3_column_int64(query, 0),
                                               .inode = (uint64_t)sqlite3_column_int64(query, 1),
                                               .offset = (uint64_t)sqlite3_column_int64(query, 2),
                                               .line = (uint64_t)sqlite3_column_int64(query, 3),
                                               .tail = (uint64_t)sqlite3_column_int64(query, 4),
                                               .seen_ms = sqlite3_column_int64(query, 5)};
    }
    sqlite3_finalize(query);
    return count;
}

uint64_t spool_waiting(struct spool *spool)
{
    uint64_t waiting = 0;

    pthread_mutex_lock(&spool->lock);
    if (spool->database != NULL)
        waiting = (uint64_t)sql_number(spool->database, "SELECT sum(waiting) FROM lanes");
    pthread_mutex_unlock(&spool->lock);
    return waiting;
}
