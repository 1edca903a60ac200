#include "status.h"

#include "files.h"
#include "moment.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char LOCK[] = "lock";

enum { PID_BYTES = 32 };

bool status_lock(int folder)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int lock = openat(folder, LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char pid[PID_BYTES];
    int length = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

    if (lock < 0 || fcntl(lock, F_OFD_SETLK, &whole) != 0)
        return false;
    /* Only "rejected retry" needs it: on a full disk it takes effect later. */
    (void)!ftruncate(lock, 0);
    (void)!files_write(lock, pid, (size_t)length, 0);
    return true;
}

pid_t status_process(const char *path)
{
    struct flock found = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int lock = folder < 0 ? -1 : openat(folder, LOCK, O_RDONLY | O_CLOEXEC);
    char text[PID_BYTES] = "";
    bool is_held = false;
    pid_t pid;

    /* Taking the lock, even briefly, could keep a process from starting. */
    if (lock >= 0) {
        is_held = fcntl(lock, F_OFD_GETLK, &found) == 0 && found.l_type != F_UNLCK;
        (void)!read(lock, text, sizeof(text) - 1);
        close(lock);
    }
    if (folder >= 0)
        close(folder);
    pid = (pid_t)strtol(text, NULL, 10);
    return !is_held ? 0 : pid > 1 ? pid : 1;
}

int status_fail(const char *path, const char *why)
{
    fprintf(stderr, "steep-monitor: cannot read the spool in %s: %s\n", path, why);
    return EXIT_FAILURE;
}

sqlite3 *status_visit(const char *path, bool is_changed)
{
    char why[SQL_PROBLEM_BYTES];
    sqlite3 *database = store_visit(path, is_changed, why);

    if (database == NULL)
        (void)status_fail(path, why);
    return database;
}

/* Prints the rows of a query, each as its first column says. */
static bool print_rows(sqlite3 *database, const char *sql)
{
    char boot[MOMENT_BOOT_BYTES + 1];
    sqlite3_stmt *query = sql_prepare(database, sql, "");
    int code;

    moment_boot(boot);
    sql_bind(query, "iisi", moment_now(), moment_uptime(), boot, (int64_t)moment_is_set());
    while ((code = sqlite3_step(query)) == SQLITE_ROW)
        puts(sql_text(query, 0));
    sqlite3_finalize(query);
    return code == SQLITE_DONE;
}

/* ?1: now, ?2: the uptime, both in ms; ?3: this boot; ?4: whether the clock is set. */
static const char *const STATUS[] = {
    "SELECT 'pending: ' || coalesce(sum(waiting), 0) FROM lanes",
    "SELECT 'oldest pending: ' ||"
    " (max(CASE boot WHEN '' THEN ?1 WHEN ?3 THEN ?2 END - time, 0) / 1000) || ' s'"
    " FROM (SELECT boot, time FROM events JOIN lanes ON id = lane ORDER BY serial LIMIT 1)"
    " WHERE boot IN ('', ?3)",
    "SELECT 'waiting for the clock to be set: ' || sum(waiting) FROM lanes"
    " WHERE boot <> '' AND NOT ?4 HAVING sum(waiting) > 0",
    "SELECT 'waiting for the key of ' || name || ': ' || sum(waiting) ||"
    " iif(max(answered_at) IS NULL, '', ' (' || iif(status = 0, 'no response', status) || ': ' ||"
    " detail || ')') FROM lanes WHERE boot = '' OR ?4"
    " GROUP BY name HAVING sum(waiting) > 0 ORDER BY name",
    "SELECT 'sent: ' || sent FROM totals",
    "SELECT 'rejected: ' || rejected FROM totals",
    "SELECT 'rejected and kept: ' || count(*) FROM rejected",
    "SELECT 'rejected and dropped: ' || forgotten FROM totals",
    "SELECT 'dropped: ' || dropped FROM totals",
    "SELECT 'last response: ' || iif(max(answered_at) IS NULL, 'nothing sent yet',"
    " iif(status = 0, 'none', status) || ' at ' ||"
    " strftime('%Y-%m-%dT%H:%M:%SZ', answered_at, 'unixepoch') || ': ' || detail) FROM lanes",
};

int status_print(const char *path)
{
    sqlite3 *database = status_visit(path, false);
    bool is_read = database != NULL && sql_run(database, "BEGIN");

    if (database == NULL)
        return EXIT_FAILURE;
    printf("running: %s\n", status_process(path) > 0 ? "yes" : "no");
    for (size_t i = 0; i < sizeof(STATUS) / sizeof(STATUS[0]) && is_read; i++)
        is_read = print_rows(database, STATUS[i]);
    if (!is_read)
        (void)status_fail(path, sqlite3_errmsg(database));
    sqlite3_close(database);
    return is_read ? EXIT_SUCCESS : EXIT_FAILURE;
}
