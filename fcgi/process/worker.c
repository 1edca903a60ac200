#include "process/worker.h"

#include "base/clock.h"
#include "base/metrics.h"
#include "db/array.h"
#include "process/results.h"
#include "process/strangers.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOG_FAILURE_MS = 2000,
    /* The server ends an idle session so much later than this program gives up its request. */
    IDLE_MARGIN_MS = 10000,
};

int64_t worker_deadline(const struct worker *worker, const struct request *request)
{
    return request->arrived_ms + worker->config->deadline_ms;
}

enum error worker_check_deadline(const struct worker *worker, const struct request *request)
{
    return clock_left(worker_deadline(worker, request)) > 0 ? ERROR_NONE : ERROR_UNAVAILABLE;
}

static void give_back(struct worker *worker)
{
    if (worker->db != NULL)
        pool_give_back(worker->pool, worker->db);
    worker->db = NULL;
}

/* Notes how a statement ended, and since when it ran. */
static enum database_verdict note(struct worker *worker, enum database_verdict verdict,
                                  int64_t begun)
{
    record_add(&worker->record, verdict, worker->db != NULL ? database_sqlstate(worker->db) : "",
               clock_us() - begun);
    if (worker->db != NULL && database_is_late(worker->db))
        give_back(worker);
    return verdict;
}

enum database_verdict worker_connect(struct worker *worker, int64_t deadline)
{
    int64_t begun = clock_us();

    if (worker->db == NULL)
        worker->db = pool_take(worker->pool, deadline);
    return note(worker, worker->db != NULL ? DATABASE_DONE : DATABASE_AWAY, begun);
}

enum database_verdict worker_call(struct worker *worker, const char *sql,
                                  const struct database_parameter *parameters, int count,
                                  int64_t deadline)
{
    enum database_verdict verdict = worker_connect(worker, deadline);
    int64_t begun = clock_us();

    if (verdict == DATABASE_DONE)
        verdict = note(worker, database_call(worker->db, sql, parameters, count, deadline), begun);
    return verdict;
}

enum database_verdict worker_open(struct worker *worker, const char *sql,
                                  const struct database_parameter *parameters, int count,
                                  int64_t deadline)
{
    enum database_verdict verdict = worker_connect(worker, deadline);
    int64_t begun = clock_us();

    if (verdict == DATABASE_DONE)
        verdict = note(worker,
                       database_open(worker->db, sql, parameters, count, deadline,
                                     worker->config->deadline_ms + IDLE_MARGIN_MS),
                       begun);
    return verdict;
}

enum database_verdict worker_next(struct worker *worker, int64_t deadline)
{
    int64_t begun = clock_us();

    return note(worker, database_next(worker->db, deadline), begun);
}

void worker_release(struct worker *worker)
{
    if (*worker->record.sqlstate == '\0' && worker->failure.ids == NULL)
        give_back(worker);
}

/* If this fails too, the program's own log still has the same. */
static void log_failure(struct worker *worker, const unsigned char *ids, size_t length,
                        const char *sqlstate, int64_t deadline)
{
    const struct database_parameter parameters[] = {
        {DATABASE_TEXT_ARRAY, ids, length},
        {DATABASE_TEXT, sqlstate, strlen(sqlstate)},
    };

    (void)!worker_call(worker, "SELECT public.log_failure($1, $2)", parameters, 2, deadline);
}

void worker_log_failure(struct worker *worker)
{
    const int64_t deadline = clock_ms() + LOG_FAILURE_MS;
    const struct record record = worker->record;
    const struct array_item id = {record.request, strlen(record.request)};
    struct group_failure *failure = &worker->failure;

    if (failure->ids != NULL)
        log_failure(worker, failure->ids, failure->length, failure->sqlstate, deadline);
    free(failure->ids);
    failure->ids = NULL;
    if (*record.sqlstate != '\0' && !record.is_reported && id.length > 0) {
        size_t length;
        unsigned char *ids = array_of_text(&id, 1, &length);

        if (ids != NULL)
            log_failure(worker, ids, length, record.sqlstate, deadline);
        free(ids);
    }
    give_back(worker);
}

void worker_note_progress(struct worker *worker)
{
    atomic_store_explicit(&worker->busy_since, clock_ms(), memory_order_relaxed);
}

struct request *worker_give_away(struct worker *worker)
{
    struct request *request = worker->request;

    if (worker->spare == NULL)
        worker->spare = request_new();
    if (worker->spare == NULL)
        return NULL;
    worker->request = NULL;
    return request;
}

void worker_put_back(struct worker *worker, struct request *request)
{
    connections_put_back(worker->connections, request);
}

void worker_finish(struct worker *worker, struct request *request)
{
    if (request_can_be_kept(request) && connections_reserve(worker->connections))
        connections_keep(worker->connections, request_release(request));
    else
        request_finish(request);
    if (request != worker->request)
        request_free(request);
}

enum error worker_error(enum database_verdict verdict)
{
    return verdict == DATABASE_DONE   ? ERROR_NONE
           : verdict == DATABASE_AWAY ? ERROR_UNAVAILABLE
                                      : ERROR_INTERNAL;
}

void worker_count(const struct worker *worker, const struct request *request, enum error error)
{
    metrics_count_request(error);
    metrics_observe(METRICS_REQUEST, clock_us() - request->arrived_us);
    if (worker->record.spent_us >= 0) {
        metrics_observe(METRICS_DATABASE, worker->record.spent_us);
        results_note(error, clock_ms());
    }
}

enum log_level worker_log_level(enum error error)
{
    return error == ERROR_INTERNAL      ? LOG_ERROR
           : error == ERROR_UNAVAILABLE ? LOG_WARNING
                                        : LOG_INFO;
}

static void begin_line(struct log_line *line, const char *event, const char *request_id,
                       enum error error)
{
    log_begin(line, worker_log_level(error), event);
    if (request_id != NULL)
        log_string(line, "request_id", request_id);
    log_number(line, "status", error_entry(error)->status);
    if (error != ERROR_NONE)
        log_string(line, "error", error_entry(error)->code);
}

bool worker_log_begin(struct log_line *line, const struct worker *worker,
                      const struct request *request, enum error error, bool is_authenticated)
{
    uint64_t left_out = 0;

    if (!is_authenticated && !strangers_take_line(error, clock_ms(), &left_out))
        return false;
    begin_line(line, worker->event, request->id, error);
    if (left_out > 0)
        log_number(line, "left_out", (long long)left_out);
    if (*worker->record.sqlstate != '\0')
        log_string(line, "sqlstate", worker->record.sqlstate);
    return true;
}

void worker_log_end(struct log_line *line, const struct request *request, const char *fate)
{
    log_number(line, "ms", clock_ms() - request->arrived_ms);
    if (fate != NULL)
        log_string(line, "reply", fate);
    log_end(line);
}

void worker_log_left_out(const char *event, bool is_end)
{
    int64_t now = clock_ms() + (is_end ? STRANGERS_REST_MS : 0);
    struct log_line line;
    uint64_t left_out;

    for (enum error error = ERROR_NONE; error < ERROR_COUNT; error++) {
        if (!strangers_take_rest(error, now, &left_out))
            continue;
        begin_line(&line, event, NULL, error);
        log_number(&line, "left_out", (long long)left_out);
        log_end(&line);
    }
}
