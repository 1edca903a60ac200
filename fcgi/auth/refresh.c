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
    RETRY_MS = 1000,
    INTERVAL_MS = 500, /* between two reads, at least */
    READ_DEADLINE_MS = 5000,
    CONNECT_MS = 2000, /* during which the thread does not notice a stop */
    /* The longest time between two successful reads, unless the thread itself hangs. */
    CURRENT_MS = POLL_MS + READ_DEADLINE_MS + 2000,
};

struct refresh {
    const struct refresh_plan *plan;
    struct keyring *keyring;
    struct connection_limits limits; /* one attempt each: the thread tries again by itself */
    struct database *db;
    pthread_t thread;
    int stop_fd;
    /* For other threads: clock_ms of the last successful read (0: none), and whether reads failed
     * since. */
    atomic_llong read_at;
    atomic_bool is_failing;
};

static enum database_verdict read_keys(struct database *db, struct keyring *keyring,
                                       int64_t deadline, size_t *count)
{
    struct keyring_key *keys = NULL;
    enum database_verdict verdict = database_call(
        db, "SELECT source, public_key FROM public.list_monitor_keys()", NULL, 0, deadline);
    int rows = verdict == DATABASE_DONE ? database_rows(db) : 0;

    if (verdict != DATABASE_DONE)
        return verdict;
    if (rows > 0 && (keys = calloc((size_t)rows, sizeof(*keys))) == NULL)
        return DATABASE_FAILED;
    for (int i = 0; i < rows; i++) {
        size_t source_length, key_length;
        const char *source = database_bytes(db, i, 0, &source_length);
        const char *key = database_bytes(db, i, 1, &key_length);

        if (source_length < 1 || source_length > KEYRING_SOURCE_BYTES ||
            key_length != SIGNATURE_KEY_BYTES) {
            free(keys);
            return DATABASE_FAILED;
        }
        memcpy(keys[i].source, source, source_length);
        keys[i].source_length = (unsigned char)source_length;
        memcpy(keys[i].key, key, key_length);
    }
    *count = (size_t)rows;
    keyring_replace_keys(keyring, keys, (size_t)rows);
    return DATABASE_DONE;
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

static enum database_verdict read_tokens(struct database *db, struct keyring *keyring,
                                         int64_t deadline, size_t *count)
{
    struct keyring_token *tokens = NULL;
    enum database_verdict verdict =
        database_call(db,
                      "SELECT label, token_sha256, floor(extract(epoch FROM expires_at))::bigint,"
                      " names, prefixes FROM public.list_access_tokens()",
                      NULL, 0, deadline);
    int rows = verdict == DATABASE_DONE ? database_rows(db) : 0;

    if (verdict != DATABASE_DONE)
        return verdict;
    if (rows > 0 && (tokens = calloc((size_t)rows, sizeof(*tokens))) == NULL)
        return DATABASE_FAILED;
    for (int i = 0; i < rows; i++) {
        size_t label_length, digest_length;
        const char *label = database_bytes(db, i, 0, &label_length);
        const char *digest = database_bytes(db, i, 1, &digest_length);

        if (label_length > KEYRING_LABEL_BYTES || digest_length != BEARER_DIGEST_BYTES ||
            !read_scope(db, i, 3, &tokens[i].scope)) {
            keyring_free_tokens(tokens, (size_t)rows);
            return DATABASE_FAILED;
        }
        memcpy(tokens[i].label, label, label_length);
        memcpy(tokens[i].digest, digest, digest_length);
        tokens[i].expires = database_is_null(db, i, 2) ? KEYRING_NEVER : database_integer(db, i, 2);
    }
    *count = (size_t)rows;
    keyring_replace_tokens(keyring, tokens, (size_t)rows);
    return DATABASE_DONE;
}

const struct refresh_plan REFRESH_KEYS = {"ingest keyring", "monitor_keys_changed", read_keys};
const struct refresh_plan REFRESH_TOKENS = {"query keyring", "access_tokens_changed", read_tokens};

static bool must_stop(const struct refresh *refresh)
{
    struct pollfd stop = {.fd = refresh->stop_fd, .events = POLLIN};

    return poll(&stop, 1, 0) > 0;
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
        size_t count = 0;
        int64_t began = clock_ms();
        enum database_verdict verdict =
            refresh->plan->read(refresh->db, refresh->keyring, began + READ_DEADLINE_MS, &count);
        int64_t next = began + (verdict == DATABASE_DONE ? POLL_MS : RETRY_MS);

        note(refresh, verdict);
        log_read(&last, refresh, verdict, count);
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

    return age >= 0 && age <= CURRENT_MS &&
           !atomic_load_explicit(&refresh->is_failing, memory_order_relaxed);
}

void refresh_join(struct refresh *refresh)
{
    if (refresh == NULL)
        return;
    pthread_join(refresh->thread, NULL);
    database_free(refresh->db);
    free(refresh);
}
