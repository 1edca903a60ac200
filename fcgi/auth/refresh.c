#include "auth/refresh.h"

#include "base/clock.h"
#include "base/log.h"
#include "db/schema.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    POLL_MS = 5000,
    UNNOTIFIED_POLL_MS = 4000, /* so that a change takes effect within 5 s */
    RETRY_MS = 1000,
    INTERVAL_MS = 500, /* between two reads, at least */
    READ_DEADLINE_MS = 5000,
    WHOLE_MS = 600 * 1000, /* between two reads of everything */
    CONNECT_MS = 2000,     /* during which the thread does not notice a stop */
    /* The longest time between two successful reads, unless the thread itself hangs. */
    CURRENT_MS = POLL_MS + READ_DEADLINE_MS + 2000,
    MARK_BYTES = 36, /* a UUID as text */
};

struct refresh {
    const struct refresh_plan *plan;
    struct keyring *keyring;
    struct connection_limits limits; /* one attempt each: the thread tries again by itself */
    struct database *db;
    pthread_t thread;
    int stop_fd;
    char mark[MARK_BYTES + 1]; /* of the snapshot; "" for none */
    int64_t changed_us;        /* when a read first returned it (clock_us); 0: no snapshot */
    int64_t whole_at;          /* when everything was last to be read (clock_ms) */
    /* For other threads: clock_ms of the last successful read (0: none), and whether reads failed
     * since. */
    atomic_llong read_at;
    atomic_bool is_failing;
};

static bool add_key(const struct database *db, int row, struct keyring_draft *draft)
{
    size_t source_length, key_length;
    const char *source = database_bytes(db, row, 1, &source_length);
    const char *key = database_bytes(db, row, 2, &key_length);

    if (database_is_null(db, row, 2))
        return keyring_draft_none(draft, source, source_length);
    return key_length == SIGNATURE_KEY_BYTES &&
           keyring_draft_key(draft, source, source_length, (const unsigned char *)key);
}

/*
 * Reads a scope from the column of its names and the next, of its prefixes: both are NULL for
 * all sources.
 */
static bool read_scope(const struct database *db, int row, int column, struct scope **scope)
{
    struct scope_array names, prefixes;

    if (database_is_null(db, row, column) && database_is_null(db, row, column + 1))
        return true;
    if (database_is_null(db, row, column) || database_is_null(db, row, column + 1))
        return false;
    names.bytes = (const unsigned char *)database_bytes(db, row, column, &names.length);
    prefixes.bytes = (const unsigned char *)database_bytes(db, row, column + 1, &prefixes.length);
    *scope = scope_new(names, prefixes);
    return *scope != NULL;
}

static bool add_token(const struct database *db, int row, struct keyring_draft *draft)
{
    size_t label_length, digest_length;
    const char *label = database_bytes(db, row, 1, &label_length);
    const char *digest = database_bytes(db, row, 2, &digest_length);
    int64_t expires = database_is_null(db, row, 3) ? KEYRING_NEVER : database_integer(db, row, 3);
    struct scope *scope = NULL;

    if (database_is_null(db, row, 2))
        return keyring_draft_none(draft, label, label_length);
    if (digest_length != BEARER_DIGEST_BYTES || !read_scope(db, row, 4, &scope))
        return false;
    if (keyring_draft_token(draft, label, label_length, (const unsigned char *)digest, expires,
                            scope))
        return true;
    scope_release(scope);
    return false;
}

const struct refresh_plan REFRESH_KEYS = {
    .name = "ingest keyring",
    .channel = "monitor_keys_changed",
    .sql = DATABASE_CURSOR
    "SELECT mark::text, source, public_key FROM public.list_monitor_keys($1::uuid)",
    .add = add_key,
    .beat = "SELECT public.beat()",
};
const struct refresh_plan REFRESH_TOKENS = {
    .name = "query keyring",
    .channel = "access_tokens_changed",
    .sql = DATABASE_CURSOR
    "SELECT mark::text, label, token_sha256, floor(extract(epoch FROM expires_at))::bigint, names,"
    " prefixes FROM public.list_access_tokens($1::uuid)",
    .add = add_token,
};

static bool must_stop(const struct refresh *refresh)
{
    struct pollfd stop = {.fd = refresh->stop_fd, .events = POLLIN};

    return poll(&stop, 1, 0) > 0;
}

/* Adds the last statement's rows, from one on. */
static bool add_rows(const struct refresh *refresh, int first, struct keyring_draft *draft)
{
    for (int i = first; i < database_rows(refresh->db); i++) {
        if (!refresh->plan->add(refresh->db, i, draft))
            return false;
    }
    return true;
}

/* Copies the mark of the first row, which has nothing else; "" where the database has none. */
static bool read_mark(const struct database *db, char mark[static MARK_BYTES + 1])
{
    size_t length;
    const char *text = database_bytes(db, 0, 0, &length);

    if (length > MARK_BYTES || !database_is_null(db, 0, 1))
        return false;
    memcpy(mark, text, length);
    mark[length] = '\0';
    return true;
}

/*
 * Reads what changed since the snapshot, into a draft. *is_known says whether the database could
 * tell that.
 */
static enum database_verdict read_changes(struct refresh *refresh, struct keyring_draft *draft,
                                          char mark[static MARK_BYTES + 1], bool *is_known)
{
    const struct database_parameter since = {DATABASE_TEXT, refresh->mark, strlen(refresh->mark)};
    enum database_verdict verdict =
        database_call(refresh->db, refresh->plan->sql + strlen(DATABASE_CURSOR), &since, 1,
                      clock_ms() + READ_DEADLINE_MS);

    if (verdict != DATABASE_DONE)
        return verdict;
    *is_known = database_rows(refresh->db) > 0;
    if (*is_known && (!read_mark(refresh->db, mark) || !add_rows(refresh, 1, draft)))
        return DATABASE_FAILED;
    return DATABASE_DONE;
}

/*
 * Whether the whole list may be older than the snapshot. A standby that knows the mark has all of
 * it; of one that does not, or that is not asked, only the age of its data tells.
 */
static bool is_older(const struct refresh *refresh, int64_t began_us)
{
    return refresh->changed_us != 0 &&
           database_age_us(refresh->db) > began_us - refresh->changed_us;
}

/* Reads everything, in pieces, which need less memory than all rows at once. */
static enum database_verdict read_whole(struct refresh *refresh, struct keyring_draft *draft,
                                        char mark[static MARK_BYTES + 1])
{
    const struct database_parameter since = {DATABASE_TEXT, NULL, 0};
    int64_t began_us = clock_us();
    enum database_verdict verdict = database_open(refresh->db, refresh->plan->sql, &since, 1,
                                                  clock_ms() + READ_DEADLINE_MS, READ_DEADLINE_MS);
    bool is_last = false;

    if (verdict == DATABASE_DONE &&
        (database_rows(refresh->db) == 0 || !read_mark(refresh->db, mark)))
        verdict = DATABASE_FAILED;
    if (verdict == DATABASE_DONE && is_older(refresh, began_us))
        verdict = DATABASE_AWAY;
    for (int first = 1; verdict == DATABASE_DONE && !is_last; first = 0) {
        is_last = database_rows(refresh->db) < DATABASE_PIECE_ROWS;
        if (!add_rows(refresh, first, draft))
            verdict = DATABASE_FAILED;
        else if (!is_last && must_stop(refresh))
            verdict = DATABASE_AWAY;
        else if (!is_last)
            verdict = database_next(refresh->db, clock_ms() + READ_DEADLINE_MS);
    }
    /* After an error, which has ended the cursor, its SQLSTATE is for the log. */
    if (*database_sqlstate(refresh->db) == '\0')
        database_clear(refresh->db);
    return verdict;
}

/*
 * Reads what has to be read, and puts it into effect. The time of a try at everything counts, so
 * that where it fails, changes are still read meanwhile.
 */
static enum database_verdict read_credentials(struct refresh *refresh)
{
    struct keyring_draft *draft = keyring_draft_new();
    int64_t now = clock_ms();
    char mark[MARK_BYTES + 1] = "";
    bool is_known = *refresh->mark != '\0' && now - refresh->whole_at < WHOLE_MS;
    enum database_verdict verdict = draft != NULL ? DATABASE_DONE : DATABASE_FAILED;

    if (!is_known)
        refresh->whole_at = now;
    if (verdict == DATABASE_DONE && is_known)
        verdict = read_changes(refresh, draft, mark, &is_known);
    if (verdict == DATABASE_DONE && !is_known)
        verdict = read_whole(refresh, draft, mark);
    if (verdict == DATABASE_DONE && !(is_known ? keyring_change(refresh->keyring, draft)
                                               : keyring_replace(refresh->keyring, draft)))
        verdict = DATABASE_FAILED;
    if (verdict == DATABASE_DONE) {
        if (refresh->changed_us == 0 || strcmp(refresh->mark, mark) != 0)
            refresh->changed_us = clock_us();
        memcpy(refresh->mark, mark, sizeof(mark));
    }
    keyring_draft_free(draft);
    return verdict;
}

/* What was logged last. */
struct logged {
    bool is_any;
    enum database_verdict verdict;
    size_t count;
};

/* Logs a read whose verdict or count differs from the last one. */
static void log_read(struct logged *last, const struct refresh *refresh,
                     enum database_verdict verdict, size_t count)
{
    struct log_line line;

    if (last->is_any && verdict == last->verdict &&
        (verdict != DATABASE_DONE || count == last->count))
        return;
    *last = (struct logged){true, verdict, count};
    log_begin(&line, verdict == DATABASE_DONE ? LOG_INFO : LOG_WARNING, "keyring");
    if (verdict == DATABASE_DONE)
        log_number(&line, "credentials", (long long)count);
    else
        log_string(&line, "detail", "could not read the credentials; keeping the last ones");
    if (*database_sqlstate(refresh->db) != '\0')
        log_string(&line, "sqlstate", database_sqlstate(refresh->db));
    log_end(&line);
}

static void note(struct refresh *refresh, enum database_verdict verdict)
{
    if (verdict == DATABASE_DONE)
        atomic_store_explicit(&refresh->read_at, clock_ms(), memory_order_relaxed);
    atomic_store_explicit(&refresh->is_failing, verdict != DATABASE_DONE, memory_order_relaxed);
}

static void *run(void *arg)
{
    struct refresh *refresh = arg;
    struct logged last = {0};
    bool is_level_known = false;

    database_listen(refresh->db, refresh->plan->channel);
    for (;;) {
        size_t environment, count;
        int64_t began = clock_ms();
        enum database_verdict verdict = read_credentials(refresh);
        int64_t next = began + (verdict != DATABASE_DONE            ? RETRY_MS
                                : database_is_notified(refresh->db) ? POLL_MS
                                                                    : UNNOTIFIED_POLL_MS);

        if (must_stop(refresh))
            return NULL;
        note(refresh, verdict);
        keyring_count(refresh->keyring, &environment, &count);
        log_read(&last, refresh, verdict, count);
        if (verdict == DATABASE_DONE && refresh->plan->beat != NULL)
            (void)!database_call(refresh->db, refresh->plan->beat, NULL, 0,
                                 began + READ_DEADLINE_MS);
        /* A database that was away may come back at another migration level. */
        if (verdict == DATABASE_DONE && !is_level_known)
            schema_check(refresh->db, began + READ_DEADLINE_MS);
        is_level_known = verdict == DATABASE_DONE;
        while (clock_left(next) > 0 && !must_stop(refresh)) {
            if (database_wait(refresh->db, refresh->stop_fd, next) && next > began + INTERVAL_MS)
                next = began + INTERVAL_MS;
        }
        if (must_stop(refresh))
            return NULL;
    }
}

struct refresh *refresh_start(const struct refresh_plan *plan, struct keyring *keyring, int stop_fd)
{
    struct refresh *refresh = calloc(1, sizeof(*refresh));

    if (refresh == NULL)
        return NULL;
    refresh->plan = plan;
    refresh->keyring = keyring;
    refresh->stop_fd = stop_fd;
    refresh->limits.first_connect_ms = CONNECT_MS;
    refresh->limits.prefers_primary = true;
    refresh->db = database_new(plan->name, &refresh->limits);
    if (refresh->db == NULL || pthread_create(&refresh->thread, NULL, run, refresh) != 0) {
        database_free(refresh->db);
        free(refresh);
        return NULL;
    }
    return refresh;
}

int64_t refresh_age_ms(const struct refresh *refresh)
{
    int64_t read_at = atomic_load_explicit(&refresh->read_at, memory_order_relaxed);

    return read_at != 0 ? clock_ms() - read_at : -1;
}

bool refresh_is_current(const struct refresh *refresh)
{
    int64_t age = refresh_age_ms(refresh);

    return age >= 0 && age <= CURRENT_MS && !refresh_is_failing(refresh);
}

bool refresh_is_failing(const struct refresh *refresh)
{
    return atomic_load_explicit(&refresh->is_failing, memory_order_relaxed);
}

void refresh_join(struct refresh *refresh)
{
    if (refresh == NULL)
        return;
    pthread_join(refresh->thread, NULL);
    database_free(refresh->db);
    free(refresh);
}
