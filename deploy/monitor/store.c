#include "store.h"

#include "base/log.h"
#include "files.h"
#include "moment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    FORMAT = 1,
    APPLICATION = 0x73740000, /* with the format: a flipped bit makes no newer version */
    BUSY_MS = 2000,
    COPIED_ROWS = 1024,
    PAGE_COUNT_OFFSET = 28, /* in the file's header */
    PATH_BYTES = 4400,
};

static const char NAME[] = "spool.db";
static const int64_t MAX_HOLE = INT64_C(1) << 40; /* in serials */

static const char SCHEMA[] =
    "CREATE TABLE IF NOT EXISTS events (serial INTEGER PRIMARY KEY,"
    " lane INTEGER NOT NULL,"
    " time INTEGER NOT NULL," /* when it was read, in ms since 1970, or since the lane's boot */
    " refused INTEGER,"       /* accepted batches of its lane when it was refused alone */
    " text BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS lanes (id INTEGER PRIMARY KEY,"
    " source TEXT NOT NULL," /* in the events; '' where the sender fills it in */
    " boot TEXT NOT NULL,"   /* '' unless their timestamp is missing */
    " name TEXT NOT NULL,"   /* under which they are sent */
    " waiting INTEGER NOT NULL DEFAULT 0,"
    " accepted INTEGER NOT NULL DEFAULT 0," /* batches */
    " began INTEGER NOT NULL DEFAULT 0,"    /* that boot, in ms since 1970; 0 while unknown */
    " status INTEGER, answered_at INTEGER, detail TEXT, UNIQUE (source, boot));"
    "CREATE TABLE IF NOT EXISTS rejected (serial INTEGER PRIMARY KEY,"
    " source TEXT NOT NULL, boot TEXT NOT NULL, time INTEGER NOT NULL, text BLOB NOT NULL,"
    " line INTEGER," /* of the input; NULL for an event that the server refused */
    " code TEXT NOT NULL, message TEXT NOT NULL, rejected_at INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS positions (device INTEGER NOT NULL, inode INTEGER NOT NULL,"
    " offset INTEGER NOT NULL, line INTEGER NOT NULL, tail INTEGER NOT NULL,"
    " seen_ms INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS totals (id INTEGER PRIMARY KEY, serial INTEGER NOT NULL DEFAULT 0,"
    " sent INTEGER NOT NULL DEFAULT 0, rejected INTEGER NOT NULL DEFAULT 0,"
    " dropped INTEGER NOT NULL DEFAULT 0,"
    " forgotten INTEGER NOT NULL DEFAULT 0," /* rejected, and dropped after that */
    " kept_bytes INTEGER NOT NULL DEFAULT 0);"
    "INSERT OR IGNORE INTO totals (id) VALUES (1);"
    "INSERT OR IGNORE INTO lanes (id, source, boot, name) VALUES (1, '', '', '');"
    "CREATE TRIGGER IF NOT EXISTS keep AFTER INSERT ON rejected BEGIN"
    " UPDATE totals SET kept_bytes = kept_bytes + length(NEW.text) + 100; END;"
    "CREATE TRIGGER IF NOT EXISTS change AFTER UPDATE OF text ON rejected BEGIN UPDATE totals"
    " SET kept_bytes = kept_bytes + length(NEW.text) - length(OLD.text); END;"
    "CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON rejected BEGIN"
    " UPDATE totals SET kept_bytes = kept_bytes - length(OLD.text) - 100; END;";

void store_empty_journal(sqlite3 *database)
{
    sqlite3_busy_timeout(database, 0);
    sqlite3_wal_checkpoint_v2(database, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_timeout(database, BUSY_MS);
}

static void report(const char *path, const char *detail)
{
    struct log_line line;

    log_begin(&line, LOG_ERROR, "spool_error");
    log_string(&line, "file", path);
    log_string(&line, "detail", detail);
    log_end(&line);
}

/* Attaches another database; false if it can't be read, or has not the same schema. */
static bool attach(sqlite3 *database, const char *path)
{
    return sql_change(database, "ATTACH ? AS other", "s", path) &&
           sql_number(database, "SELECT NOT EXISTS (SELECT name, sql FROM main.sqlite_schema"
                                " EXCEPT SELECT name, sql FROM other.sqlite_schema)") == 1;
}

enum opened { OPENED, DAMAGED, FAILED };

static enum opened judge(sqlite3 *database, bool is_done)
{
    return is_done ? OPENED : sql_is_damaged(database) ? DAMAGED : FAILED;
}

/* Whether a file has our schema: a flipped bit may leave another one that SQLite understands. */
static enum opened check_schema(const char *path)
{
    sqlite3 *fresh = NULL;
    enum opened opened = FAILED;

    if (sqlite3_open(":memory:", &fresh) == SQLITE_OK && sql_run(fresh, SCHEMA))
        opened = judge(fresh, attach(fresh, path));
    if (opened == FAILED && sqlite3_errcode(fresh) == SQLITE_OK)
        opened = DAMAGED;
    sqlite3_close(fresh);
    return opened;
}

/* Checks all pages of an open file, and sets it up. */
static enum opened set_up(sqlite3 *database, const char *path, int journal_pages, int64_t format)
{
    char settings[512];
    int step = STORE_PAGE_BYTES;
    sqlite3_stmt *query = sql_prepare(database, "PRAGMA quick_check(1)", "");
    enum opened opened = judge(database, sqlite3_step(query) == SQLITE_ROW);

    if (opened == OPENED && strcmp(sql_text(query, 0), "ok") != 0)
        opened = DAMAGED;
    else if (opened == OPENED && format == FORMAT)
        opened = check_schema(path);
    sqlite3_finalize(query);
    if (opened != OPENED)
        return opened;
    /* Debian's SQLite overwrites what is deleted, unless told otherwise. */
    snprintf(settings, sizeof(settings),
             "%s PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = OFF;"
             "PRAGMA cache_size = -2048; PRAGMA wal_autocheckpoint = %d;"
             "PRAGMA journal_size_limit = %d; BEGIN IMMEDIATE",
             format == FORMAT ? "" : "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL;",
             journal_pages, 2 * journal_pages * STORE_PAGE_BYTES);
    /* With a step, SQLite allocates the size that SQLITE_FCNTL_SIZE_HINT tells. */
    sqlite3_file_control(database, "main", SQLITE_FCNTL_CHUNK_SIZE, &step);
    if (!sql_run(database, settings) || (format != FORMAT && !sql_run(database, SCHEMA)))
        return judge(database, false);
    /* This writes to it, and so fails if its header has the version of a newer SQLite. */
    snprintf(settings, sizeof(settings),
             "PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT", FORMAT,
             APPLICATION + FORMAT);
    return judge(database, sql_run(database, settings));
}

/* Opens a file. No database unless OPENED; after FAILED there is a line in the log. */
static enum opened open_file(const char *path, int journal_pages, sqlite3 **database)
{
    char why[SQL_PROBLEM_BYTES];
    int64_t format = 0;
    enum opened opened = FAILED;

    if (sqlite3_open_v2(path, database,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) == SQLITE_OK) {
        sqlite3_busy_timeout(*database, BUSY_MS);
        format = sql_number(*database, "PRAGMA user_version");
        if (sql_number(*database, "PRAGMA application_id") != APPLICATION + format)
            format = 0;
    }
    if (format <= FORMAT)
        opened = set_up(*database, path, journal_pages, format);
    if (opened == OPENED)
        return OPENED;
    sql_problem(*database, why);
    if (format > FORMAT)
        snprintf(why, sizeof(why),
                 "made by a newer version of steep-monitor (format %" PRId64 ", not %d)", format,
                 FORMAT);
    if (opened == FAILED)
        report(path, why);
    /* The last close would copy the journal into the damaged file. */
    sqlite3_db_config(*database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(*database);
    *database = NULL;
    return opened;
}

/* Copies rows behind a serial; false if they can't be read or written. */
static bool copy_some(sqlite3_stmt *insert, int64_t after, int64_t rows)
{
    sqlite3_step(sql_bind(insert, "ii", after, rows));
    return sqlite3_reset(insert) == SQLITE_OK;
}

/* Finds the end of a hole: the first serial behind which a row, or the table's end, can be read. */
static int64_t find_readable(sqlite3_stmt *insert, int64_t unreadable)
{
    int64_t step = 1;

    while (step < MAX_HOLE && !copy_some(insert, unreadable + step, 1))
        step *= 2;
    for (int64_t half = step / 2; half > 0; half /= 2) {
        if (!copy_some(insert, unreadable + step - half, 1))
            unreadable += half;
        step -= half;
    }
    return unreadable + step;
}

/*
 * Copies the readable rows of a table that has serials; around damage, fewer and fewer at
 * once. False if they can't be written.
 */
static bool copy_rows(sqlite3 *database, const char *table)
{
    char sql[160];
    int64_t last = 0, before = -1, rows = COPIED_ROWS;
    sqlite3_stmt *insert;

    snprintf(sql, sizeof(sql),
             "INSERT OR IGNORE INTO %s SELECT * FROM other.%s WHERE serial > ? ORDER BY serial"
             " LIMIT ?",
             table, table);
    insert = sql_prepare(database, sql, "");
    while (before != last && last < MAX_HOLE) {
        if (copy_some(insert, last, rows)) {
            before = last;
            snprintf(sql, sizeof(sql),
                     "SELECT coalesce(max(serial), %" PRId64 ") FROM (SELECT serial FROM %s WHERE"
                     " serial > %" PRId64 " ORDER BY serial LIMIT %" PRId64 ")",
                     last, table, last, rows);
            last = sql_number(database, sql);
            rows = COPIED_ROWS;
        } else if (!sql_is_damaged(database)) {
            break;
        } else if (rows > 1) {
            rows /= 2;
        } else {
            last = find_readable(insert, last);
        }
    }
    sqlite3_finalize(insert);
    return before == last || last >= MAX_HOLE;
}

/* Gives a damaged file the first page of a new one: its header, and the same schema. */
static bool replace_first_page(sqlite3 *database, const char *damaged)
{
    char page[STORE_PAGE_BYTES];
    int from = open(sqlite3_db_filename(database, "main"), O_RDONLY | O_CLOEXEC);
    int to = open(damaged, O_WRONLY | O_CLOEXEC);
    bool is_done;

    store_empty_journal(database);
    is_done = pread(from, page, sizeof(page), 0) == (ssize_t)sizeof(page);
    /* Without a number of pages, SQLite takes the file's length. */
    memset(page + PAGE_COUNT_OFFSET, 0, sizeof(uint32_t));
    is_done = is_done && files_write(to, page, sizeof(page), 0);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return is_done;
}

/* Copies what can be read of a damaged database to a new one; false if that can't be written. */
static bool copy(sqlite3 *database, const char *damaged, int64_t *waiting)
{
    static const char *const OTHERS[] = {
        "REPLACE INTO lanes SELECT * FROM other.lanes",
        "INSERT INTO positions SELECT * FROM other.positions",
        "REPLACE INTO totals SELECT * FROM other.totals",
    };

    if (!attach(database, damaged)) {
        /* It has another schema then, or is damaged. */
        if (sqlite3_errcode(database) != SQLITE_OK && !sql_is_damaged(database))
            return false;
        (void)!sql_run(database, "DETACH other");
        if (!replace_first_page(database, damaged) || !attach(database, damaged))
            return sql_is_damaged(database);
    }
    *waiting = sql_number(database, "SELECT sum(waiting) FROM other.lanes");
    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++) {
        if (!sql_run(database, OTHERS[i]) && !sql_is_damaged(database))
            return false;
    }
    return copy_rows(database, "events") && copy_rows(database, "rejected");
}

/* Counts what was copied, and copies the journal; false if it can't be written. */
static bool finish_copy(sqlite3 *database)
{
    /* Where a lane can't be read, its events are sent like those without a source. */
    return sql_run(database, "UPDATE events SET lane = 1 WHERE lane NOT IN (SELECT id FROM lanes);"
                             "UPDATE lanes SET waiting ="
                             " (SELECT count(*) FROM events WHERE lane = lanes.id);"
                             "UPDATE totals SET serial = max(serial, (SELECT coalesce(max(serial),"
                             " 0) FROM events)), kept_bytes ="
                             " (SELECT coalesce(sum(length(text) + 100), 0) FROM rejected);"
                             "PRAGMA journal_mode = DELETE");
}

/* Copies what can be read to a new file. False, after a line in the log, if it can't be written. */
static bool recover(const char *damaged, const char *path, int journal_pages)
{
    int64_t waiting = 0, found;
    char why[SQL_PROBLEM_BYTES];
    struct log_line line;
    sqlite3 *database;
    bool is_done;

    if (open_file(path, journal_pages, &database) != OPENED)
        return false;
    /* A detached database would copy the journal into the damaged file. */
    sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    is_done = copy(database, damaged, &waiting);
    sql_problem(database, why);
    (void)!sql_run(database, "DETACH other");
    if (is_done) {
        is_done = finish_copy(database);
        sql_problem(database, why);
    }
    found = sql_number(database, "SELECT sum(waiting) FROM lanes");
    sqlite3_close(database);
    if (!is_done) {
        report(damaged, "the database is damaged, and what can be read of it can't be copied");
        report(path, why);
        return false;
    }
    log_begin(&line, LOG_WARNING, "spool_recovered");
    log_number(&line, "events", (long long)found);
    if (waiting >= found)
        log_number(&line, "lost", (long long)(waiting - found));
    log_string(&line, "detail", "kept the pending events that can be read");
    log_end(&line);
    return true;
}

/* A path, or that of its journal or the journal's index. */
static const char *path_of(char path[static PATH_BYTES], const char *database, const char *suffix)
{
    snprintf(path, PATH_BYTES, "%s%s", database, suffix);
    return path;
}

static void remove_database(const char *path)
{
    static const char *const SUFFIXES[] = {"", "-wal", "-shm", "-journal"};
    char part[PATH_BYTES];

    for (size_t i = 0; i < sizeof(SUFFIXES) / sizeof(SUFFIXES[0]); i++)
        unlink(path_of(part, path, SUFFIXES[i]));
}

/*
 * Renames a damaged database and its journal, and puts another in its place. After a kill
 * before the last step, the next start goes on.
 */
static bool replace(const char *path, const char *by)
{
    char aside[PATH_BYTES - 64], from[PATH_BYTES], to[PATH_BYTES];
    struct log_line line;

    snprintf(aside, sizeof(aside), "%s.damaged-%" PRId64, path, moment_now());
    if ((rename(path_of(from, path, "-wal"), path_of(to, aside, "-wal")) != 0 && errno != ENOENT) ||
        (unlink(path_of(from, path, "-shm")) != 0 && errno != ENOENT) ||
        (rename(path, aside) != 0 && errno != ENOENT) || rename(by, path) != 0) {
        report(path, "the database is damaged, and can't be renamed");
        return false;
    }
    log_begin(&line, LOG_ERROR, "spool_damaged");
    log_string(&line, "file", path);
    log_string(&line, "renamed", aside);
    log_string(&line, "detail", "the database is damaged, replaced it by what can be read of it");
    log_end(&line);
    return true;
}

sqlite3 *store_open(const char *folder, int journal_pages)
{
    char path[PATH_BYTES - 128], part[PATH_BYTES - 64], whole[PATH_BYTES - 64];
    sqlite3 *database = NULL;

    snprintf(path, sizeof(path), "%s/%s", folder, NAME);
    snprintf(part, sizeof(part), "%s.part", path);
    snprintf(whole, sizeof(whole), "%s.new", path);
    remove_database(part);
    if (access(whole, F_OK) == 0 && !replace(path, whole))
        return NULL;
    if (open_file(path, journal_pages, &database) != DAMAGED)
        return database;
    /* Once it is complete it has another name. */
    if (!recover(path, part, journal_pages) || rename(part, whole) != 0) {
        remove_database(part);
        return NULL;
    }
    if (replace(path, whole) && open_file(path, journal_pages, &database) == DAMAGED)
        report(path, "the recovered database is damaged");
    return database;
}

sqlite3 *store_visit(const char *folder, bool is_changed, char why[static SQL_PROBLEM_BYTES])
{
    /* Without a process that has it open, a folder that can't be written needs "immutable". */
    sqlite3 *database = NULL;

    for (size_t i = 0; i < (is_changed ? 1 : 2); i++) {
        char path[PATH_BYTES];

        snprintf(path, sizeof(path), i == 0 ? "%s/%s" : "file:%s/%s?immutable=1", folder, NAME);
        if (sqlite3_open_v2(path, &database,
                            (is_changed ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) |
                                SQLITE_OPEN_URI,
                            NULL) == SQLITE_OK &&
            sqlite3_busy_timeout(database, BUSY_MS) == SQLITE_OK &&
            sql_run(database, "SELECT * FROM totals"))
            return database;
        sql_problem(database, why);
        sqlite3_close(database);
    }
    return NULL;
}
