#include "answer/query.h"

#include "base/log.h"
#include "base/metrics.h"

static const char ALLOW[] = "GET, HEAD, OPTIONS";

static void log_request(const struct worker *worker, const struct query *query, enum error error,
                        const char *fate)
{
    struct log_line line;

    if (!worker_log_begin(&line, worker, query->request, error, query->is_known))
        return;
    if (query->is_known)
        log_string(&line, "token", query->label);
    if (error == ERROR_NONE) {
        log_number(&line, "days", query->asked.parameters.days);
        log_number(&line, "rows", query->rows);
    }
    if (error == ERROR_NONE && query->asked.parameters.source_length > 0)
        log_bytes(&line, "source", query->asked.parameters.source,
                  query->asked.parameters.source_length);
    if (error == ERROR_NONE && query->asked.parameters.grouping != QUERY_BY_SOURCE_AND_HOUR)
        log_string(&line, "group_by",
                   query->asked.parameters.grouping == QUERY_BY_HOUR ? "hour" : "source");
    worker_log_end(&line, query->request, fate);
}

/* Counts and logs a request that was answered, and ends it. */
static void end(struct worker *worker, const struct query *query, enum error error,
                const char *fate)
{
    if (fate != NULL)
        request_break(query->request);
    worker_count(worker, query->request, error);
    log_request(worker, query, error, fate);
    worker_finish(worker, query->request);
}

static const char *fate_of(bool is_delivered)
{
    return is_delivered ? NULL : "lost";
}

void query_refuse(struct worker *worker, const struct query *query, enum error error)
{
    bool is_delivered;

    buffer_reset(&worker->reply);
    reply_add_error(&worker->reply, error);
    error = reply_settle(&worker->reply, error);
    is_delivered = reply_send(query->request, error, ALLOW, &worker->reply);
    end(worker, query, error, fate_of(is_delivered));
}

void query_send(struct worker *worker, struct query *query, const struct answer *answer)
{
    query->rows = answer->rows.count;
    end(worker, query, ERROR_NONE, fate_of(answer_send(answer, query->form, query->request)));
}

void query_stream(struct worker *worker, struct query *query, struct answer *answer)
{
    bool is_delivered;
    enum error error = answer_stream(answer, query->form, worker, query->request, &is_delivered);

    metrics_add(METRIC_ANSWERS_STREAMED, 1);
    metrics_add(METRIC_ANSWERS_BROKEN, error != ERROR_NONE);
    query->rows = answer->rows.count;
    worker_release(worker);
    end(worker, query, error, error != ERROR_NONE ? "broken" : fate_of(is_delivered));
}
