#include "process/probe.h"

#include "base/clock.h"
#include "base/log.h"
#include "db/database.h"
#include "db/sqlstate.h"
#include "process/results.h"
#include "process/worker.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    INTERVAL_MS = 5000,
    RETRY_MS = 1000,
    DEADLINE_MS = 5000,
    CONNECT_MS = 2000, /* during which the thread does not notice a stop */
};

struct probe {
    const struct probe_plan *plan;
    struct connection_limits limits; /* one attempt each: the thread tries again by itself */
    struct database *db;
    char logged[SQLSTATE_BYTES + 1]; /* of the failure that was logged last; "" for none */
    pthread_t thread;
    int stop_fd;
};

/* That the database is not reached is logged as database_away, and has no SQLSTATE. */
static void log_change(struct probe *probe, enum error error, const char *sqlstate)
{
    struct log_line line;

    if (strcmp(sqlstate, probe->logged) == 0 || (error != ERROR_NONE && *sqlstate == '\0'))
        return;
    memcpy(probe->logged, sqlstate, strlen(sqlstate) + 1);
    log_begin(&line, worker_log_level(error), "probe");
    log_string(&line, "detail",
               error == ERROR_NONE ? "the statement that checks readiness succeeds again"
                                   : "the statement that checks readiness failed");
    if (*sqlstate != '\0')
        log_string(&line, "sqlstate", sqlstate);
    log_end(&line);
}

static void run_once(struct probe *probe)
{
    enum database_verdict verdict =
        database_call(probe->db, probe->plan->sql, NULL, 0, clock_ms() + DEADLINE_MS);

    /* The language runs and the grant is there; of the shards it says nothing. */
    if (verdict == DATABASE_AWAY && database_lacks_shard(probe->db)) {
        log_change(probe, ERROR_NONE, "");
    } else {
        results_note_probe(worker_error(verdict), clock_ms());
        log_change(probe, worker_error(verdict), database_sqlstate(probe->db));
    }
    database_disconnect(probe->db);
}

static bool is_due(int64_t begun)
{
    int64_t success = results_succeeded_at();
    int64_t since = success > begun ? success : begun;

    return results_last_failed() || clock_left(since + INTERVAL_MS) == 0;
}

static bool must_stop(const struct probe *probe, int ms)
{
    struct pollfd stop = {.fd = probe->stop_fd, .events = POLLIN};

    return poll(&stop, 1, ms) > 0;
}

static void *run(void *arg)
{
    struct probe *probe = arg;

    for (;;) {
        int64_t begun = clock_ms();

        run_once(probe);
        do {
            if (must_stop(probe, RETRY_MS))
                return NULL;
        } while (!is_due(begun));
    }
}

struct probe *probe_start(const struct probe_plan *plan, int stop_fd)
{
    struct probe *probe = calloc(1, sizeof(*probe));

    if (probe == NULL)
        return NULL;
    probe->plan = plan;
    probe->stop_fd = stop_fd;
    probe->limits.first_connect_ms = CONNECT_MS;
    probe->db = database_new(plan->name, &probe->limits);
    if (probe->db == NULL || pthread_create(&probe->thread, NULL, run, probe) != 0) {
        database_free(probe->db);
        free(probe);
        return NULL;
    }
    return probe;
}

void probe_join(struct probe *probe)
{
    if (probe == NULL)
        return;
    pthread_join(probe->thread, NULL);
    database_free(probe->db);
    free(probe);
}
