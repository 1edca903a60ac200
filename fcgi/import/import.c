#include "import/import.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "db/database.h"
#include "import/lines.h"
#include "import/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CONNECTIONS = 2, /* while one batch is stored, the next is read and checked */
    INPUT_BYTES = 64 * 1024,
    CONNECT_MS = 5000,
    WAIT_MS = 30 * 1000, /* for a database that is restarted */
    STATEMENT_MS = 60 * 1000,
};

/* What the threads share. */
struct import {
    pthread_mutex_t lock;
    struct connection_limits limits;

    size_t at, end; /* of what is read and not yet taken */
    char input[INPUT_BYTES];
    int64_t line;       /* lines taken */
    int64_t taken;      /* bytes of them */
    int64_t file_bytes; /* of standard input, if it is a file, else 0 */
    bool is_ended;

    int64_t read, inserted, duplicates, rejected;
    const char *failure; /* why it ended early, or NULL */
    char problem[40];    /* of the database */
    int64_t unstored;    /* the first line that may not be stored; 0 for none */
    struct progress progress;
};

static void fail(struct import *import, const char *why, int64_t line)
{
    if (import->failure == NULL)
        import->failure = why;
    if (import->unstored == 0 || line < import->unstored)
        import->unstored = line;
}

/* Reads more of standard input; false at its end. */
static bool read_more(struct import *import)
{
    ssize_t count;

    do
        count = read(STDIN_FILENO, import->input, sizeof(import->input));
    while (count < 0 && errno == EINTR);
    if (count < 0)
        fail(import, "cannot read standard input", import->line + 1);
    import->at = 0;
    import->end = count > 0 ? (size_t)count : 0;
    return count > 0;
}

/* Takes the next line, without its end, into lines; false if there is none. */
static bool take_line(struct import *import, struct lines *lines, char *to)
{
    size_t length = 0;
    bool is_read = false;
    bool is_whole = false;
    bool is_long = false;

    while (!is_whole && (import->at < import->end || read_more(import))) {
        const char *from = import->input + import->at;
        size_t left = import->end - import->at;
        const char *newline = memchr(from, '\n', left);
        size_t count = newline != NULL ? (size_t)(newline - from) : left;

        is_read = true;
        is_whole = newline != NULL;
        is_long = is_long || count > LINES_LINE_BYTES - length;
        if (!is_long) {
            memcpy(to + length, from, count);
            length += count;
        }
        import->at += count + is_whole;
        import->taken += (int64_t)count + is_whole;
    }
    if (!is_read || import->failure != NULL)
        return false;
    import->line++;
    if (import->line == 1 && length >= 3 && memcmp(to, "\xef\xbb\xbf", 3) == 0) {
        length -= 3;
        memmove(to, to + 3, length);
    }
    lines_add(lines, is_long ? 0 : length, import->line,
              is_long ? ERROR_INVALID_EVENT : ERROR_NONE);
    return true;
}

/* Takes as many lines as a batch may have; false if there are none. */
static bool take_lines(struct import *import, struct lines *lines)
{
    char *to;

    lines_clear(lines);
    pthread_mutex_lock(&import->lock);
    while (!import->is_ended && import->failure == NULL && (to = lines_next(lines)) != NULL)
        import->is_ended = !take_line(import, lines, to);
    pthread_mutex_unlock(&import->lock);
    return lines->count > 0;
}

/* Of a file by its bytes, as nobody knows how many events it has. */
static void show_progress(struct import *import)
{
    if (import->file_bytes > 0)
        progress_show(&import->progress, clock_ms(), import->taken / 1024,
                      (import->file_bytes + 1023) / 1024, "KiB");
    else
        progress_show(&import->progress, clock_ms(), import->read, 0, "events");
}

static void report(struct import *import, const struct lines *lines)
{
    if (lines->valid < lines->count)
        progress_wipe(&import->progress);
    for (size_t i = 0; i < lines->count; i++) {
        const struct lines_event *event = &lines->events[i];
        const struct error_entry *entry = error_entry(event->error);

        /* The sentences about the form of a request or of its events state other limits. */
        if (event->error == ERROR_INVALID_REQUEST || event->error == ERROR_INVALID_EVENT)
            fprintf(stderr,
                    "line %lld: invalid_event: must be one JSON object in UTF-8, of at most 4 MiB, "
                    "32 levels and 200000 objects and arrays, that PostgreSQL accepts.\n",
                    (long long)event->number);
        else if (event->error != ERROR_NONE)
            fprintf(stderr, "line %lld: %s: %s\n", (long long)event->number, entry->code,
                    entry->message);
    }
}

static enum database_verdict insert(struct database *db, const char *text, size_t length,
                                    int64_t *inserted)
{
    const struct database_parameter body = {DATABASE_TEXT, text, length};
    enum database_verdict verdict =
        database_call(db, "SELECT inserted_count FROM public.bulk_insert_events($1::text::jsonb)",
                      &body, 1, clock_ms() + STATEMENT_MS);

    if (verdict == DATABASE_DONE)
        *inserted += database_integer(db, 0, 0);
    return verdict;
}

/* Stores the events one by one, and rejects those that PostgreSQL refuses. */
static enum database_verdict insert_each(struct database *db, struct lines *lines,
                                         int64_t *inserted)
{
    enum database_verdict verdict = DATABASE_DONE;

    for (size_t i = 0; i < lines->count && verdict == DATABASE_DONE; i++) {
        const char *text;
        size_t length;

        if (lines->events[i].error != ERROR_NONE)
            continue;
        text = lines_single(lines, i, &length);
        verdict = insert(db, text, length, inserted);
        if (verdict == DATABASE_REFUSED) {
            lines->events[i].error = ERROR_INVALID_EVENT;
            lines->valid--;
            verdict = DATABASE_DONE;
        }
    }
    return verdict;
}

static void store(struct import *import, struct database *db, struct lines *lines)
{
    enum database_verdict verdict = DATABASE_DONE;
    int64_t inserted = 0;

    if (lines->valid > 0)
        verdict = insert(db, lines->text, lines->length, &inserted);
    if (verdict == DATABASE_REFUSED)
        verdict = insert_each(db, lines, &inserted);

    pthread_mutex_lock(&import->lock);
    if (verdict == DATABASE_DONE) {
        import->read += (int64_t)lines->count;
        import->inserted += inserted;
        import->duplicates += (int64_t)lines->valid - inserted;
        import->rejected += (int64_t)(lines->count - lines->valid);
        report(import, lines);
        show_progress(import);
    } else {
        if (import->failure == NULL && *database_sqlstate(db) != '\0')
            snprintf(import->problem, sizeof(import->problem), "the database reports error %s",
                     database_sqlstate(db));
        fail(import, import->problem, lines->events[0].number);
    }
    pthread_mutex_unlock(&import->lock);
}

static void *work(void *context)
{
    struct import *import = context;
    struct lines *lines = malloc(sizeof(*lines));
    struct database *db = database_new("steepctl events import", &import->limits);

    if (lines != NULL && db != NULL) {
        while (take_lines(import, lines)) {
            lines_check(lines);
            store(import, db, lines);
        }
    } else {
        pthread_mutex_lock(&import->lock);
        fail(import, "out of memory", import->line + 1);
        pthread_mutex_unlock(&import->lock);
    }
    database_free(db);
    free(lines);
    return NULL;
}

/* The bytes that are left of a file at standard input; 0 if it is none, or their number unknown. */
static int64_t count_file_bytes(void)
{
    struct stat file;
    off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);

    if (fstat(STDIN_FILENO, &file) != 0 || !S_ISREG(file.st_mode) || at < 0 || at > file.st_size)
        return 0;
    return file.st_size - at;
}

int import_main(bool is_quiet)
{
    static struct import import = {
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .limits = {.first_connect_ms = CONNECT_MS, .wait_ms = WAIT_MS},
        .problem = "the database does not answer",
    };
    pthread_t threads[CONNECTIONS];
    int started = 0;

    import.file_bytes = count_file_bytes();
    progress_begin(&import.progress, is_quiet, clock_ms());
    while (started < CONNECTIONS && pthread_create(&threads[started], NULL, work, &import) == 0)
        started++;
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (started == 0)
        fail(&import, "cannot start a thread", 1);

    progress_wipe(&import.progress);
    printf("events read: %lld, inserted: %lld, duplicates: %lld, rejected: %lld\n",
           (long long)import.read, (long long)import.inserted, (long long)import.duplicates,
           (long long)import.rejected);
    if (import.failure != NULL)
        fprintf(stderr,
                "%s; the lines before %lld are done: run it again, which skips them, or continue "
                "with tail -n +%lld\n",
                import.failure, (long long)import.unstored, (long long)import.unstored);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "cannot write standard output: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    return import.failure == NULL && import.rejected == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
