#include "process/worker.h"

#include "base/clock.h"
#include "base/metrics.h"

int64_t worker_deadline(const struct worker *worker, const struct request *request)
{
    return request->arrived_ms + worker->config->deadline_ms;
}

enum error worker_check_deadline(const struct worker *worker, const struct request *request)
{
    return clock_left(worker_deadline(worker, request)) > 0 ? ERROR_NONE : ERROR_UNAVAILABLE;
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
    if (worker->record.spent_us >= 0)
        metrics_observe(METRICS_DATABASE, worker->record.spent_us);
}

void worker_log_begin(struct log_line *line, const char *event, const struct worker *worker,
                      const struct request *request, enum error error)
{
    log_begin(line,
              error == ERROR_INTERNAL      ? LOG_ERROR
              : error == ERROR_UNAVAILABLE ? LOG_WARNING
                                           : LOG_INFO,
              event);
    log_string(line, "request_id", request->id);
    log_number(line, "status", error_entry(error)->status);
    if (error != ERROR_NONE)
        log_string(line, "error", error_entry(error)->code);
    if (*worker->record.sqlstate != '\0')
        log_string(line, "sqlstate", worker->record.sqlstate);
}

void worker_log_end(struct log_line *line, const struct request *request, bool is_delivered)
{
    log_number(line, "ms", clock_ms() - request->arrived_ms);
    if (!is_delivered)
        log_string(line, "reply", "lost");
    log_end(line);
}
