#include "rejected.h"

#include "base/utf8.h"
#include "complete.h"
#include "moment.h"
#include "status.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Some at a time: while a read is open, which a pager may make long, the journal only grows. */
static const char LIST[] =
    "SELECT serial, json_object('time', strftime('%Y-%m-%dT%H:%M:%SZ', rejected_at / 1000,"
    " 'unixepoch'), 'reason', code || ': ' || message, 'line', line, 'event',"
    " iif(line IS NULL AND json_valid(event), json(event), event))"
    " FROM (SELECT *, CAST(text AS TEXT) AS event FROM rejected WHERE serial > ?"
    " ORDER BY serial LIMIT 16)";

/* Moves events to the pending ones; a lane may have been removed meanwhile. */
static const char MOVE[] =
    "INSERT OR IGNORE INTO lanes (source, boot, name) SELECT source, boot, iif(source = '',"
    " (SELECT name FROM lanes WHERE id = 1), source) FROM rejected WHERE line IS NULL;"
    "INSERT INTO events (serial, lane, time, text) SELECT (SELECT serial FROM totals) +"
    " row_number() OVER (ORDER BY rejected.serial), id, time, text FROM rejected"
    " JOIN lanes USING (source, boot) WHERE line IS NULL;"
    "UPDATE lanes SET waiting = waiting + (SELECT count(*) FROM rejected WHERE line IS NULL"
    " AND rejected.source = lanes.source AND rejected.boot = lanes.boot);"
    "UPDATE totals SET serial = serial + (SELECT count(*) FROM rejected WHERE line IS NULL);"
    "DELETE FROM rejected WHERE line IS NULL;"
    "COMMIT";

/* Writes text; each invalid byte becomes U+FFFD. */
static void print_text(FILE *out, const char *text, size_t left)
{
    while (left > 0) {
        size_t length = 1;

        while (length < 4 && length < left && !utf8_valid((const unsigned char *)text, length))
            length++;
        if (utf8_valid((const unsigned char *)text, length)) {
            fwrite(text, 1, length, out);
        } else {
            fputs("\xef\xbf\xbd", out);
            length = 1;
        }
        text += length;
        left -= length;
    }
}

static bool list(sqlite3 *database)
{
    sqlite3_stmt *query = sql_prepare(database, LIST, "");
    int64_t serial = 0, before = -1;
    int code = query == NULL ? SQLITE_ERROR : SQLITE_DONE;

    while (serial != before && code == SQLITE_DONE) {
        char *text = NULL;
        size_t length = 0;
        FILE *out = open_memstream(&text, &length);

        if (out == NULL)
            break;
        before = serial;
        sql_bind(query, "i", serial);
        while ((code = sqlite3_step(query)) == SQLITE_ROW) {
            serial = sqlite3_column_int64(query, 0);
            print_text(out, sql_text(query, 1), (size_t)sqlite3_column_bytes(query, 1));
            putc('\n', out);
        }
        sqlite3_reset(query);
        fclose(out);
        fwrite(text, 1, length, stdout);
        free(text);
    }
    sqlite3_finalize(query);
    return serial == before && code == SQLITE_DONE && fflush(stdout) == 0;
}

/* Makes events of the lines that are valid now, under a name. */
static bool complete_lines(sqlite3 *database, const char *name)
{
    struct completer *completer = completer_new(name);
    const bool is_set = moment_is_set();
    char boot[MOMENT_BOOT_BYTES + 1];
    sqlite3_stmt *query = sql_prepare(
        database, "SELECT serial, text FROM rejected WHERE line IS NOT NULL ORDER BY serial", "");
    int code = SQLITE_NOMEM;

    moment_boot(boot);
    while (completer != NULL && (code = sqlite3_step(query)) == SQLITE_ROW) {
        const size_t length = (size_t)sqlite3_column_bytes(query, 1);
        struct completed completed;

        if (length == 0 || length > COMPLETE_LINE_BYTES ||
            complete_event(completer, sqlite3_column_blob(query, 1), length,
                           is_set ? moment_now() : 0, &completed) != ERROR_NONE)
            continue;
        if (!sql_change(database,
                        "UPDATE rejected SET line = NULL, text = ?, source = ?, boot = ?,"
                        " time = ? WHERE serial = ?",
                        "bssii", completed.text, completed.length, completed.has_source ? name : "",
                        completed.has_timestamp ? "" : boot,
                        completed.has_timestamp ? moment_now() : moment_uptime(),
                        sqlite3_column_int64(query, 0)))
            break;
    }
    sqlite3_finalize(query);
    free(completer);
    return code == SQLITE_DONE;
}

/* Makes them pending again; lines are read under the name of the process that is running. */
static bool retry(sqlite3 *database, const struct options *options, pid_t process)
{
    char name[COMPLETE_SOURCE_BYTES + 1];
    sqlite3_stmt *query = sql_prepare(database, "SELECT name FROM lanes WHERE id = 1", "");
    int64_t count, invalid;

    snprintf(name, sizeof(name), "%s",
             process > 0 && sqlite3_step(query) == SQLITE_ROW ? sql_text(query, 0)
                                                              : options->source);
    sqlite3_finalize(query);
    if (!sql_run(database, "BEGIN IMMEDIATE") || !complete_lines(database, name))
        return false;
    count = sql_number(database, "SELECT count(*) FROM rejected WHERE line IS NULL");
    invalid = sql_number(database, "SELECT count(*) FROM rejected WHERE line IS NOT NULL");
    if (!sql_run(database, MOVE))
        return false;
    if (process > 1)
        (void)kill(process, SIGUSR1);
    printf("%lld rejected %s sent again%s\n", (long long)count,
           count == 1 ? "event is" : "events are", process > 0 ? "" : " after the next start");
    if (invalid > 0)
        printf("%lld %s still invalid\n", (long long)invalid, invalid == 1 ? "is" : "are");
    return true;
}

int rejected_command(const struct options *options)
{
    const char *command = options->operand;
    const bool is_list = strcmp(command, "list") == 0;
    sqlite3 *database = status_visit(options->state, !is_list);
    int status = EXIT_SUCCESS;

    if (database == NULL)
        return EXIT_FAILURE;
    if (!(is_list                         ? list(database)
          : strcmp(command, "retry") == 0 ? retry(database, options, status_process(options->state))
                                          : sql_run(database, "DELETE FROM rejected")))
        status = status_fail(options->state, sqlite3_errmsg(database));
    sqlite3_close(database);
    return status;
}
