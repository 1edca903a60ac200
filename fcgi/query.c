/*
 * query.fcgi: answers a dashboard with the hourly counts of the data model's
 * get_hourly_aggregates, or with their totals. README.md describes the HTTP side.
 */
#include "answer/query.h"
#include "answer/lead.h"
#include "auth/bearer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "http/gzip.h"
#include "http/query_string.h"
#include "process/service.h"

#include <time.h>

static const char USAGE[] = "usage: query.fcgi [-t | -V]\n"
                            "Serves FastCGI on a listening socket that it inherits.\n";

/* Dashboards give up after a few seconds. */
enum { DATABASE_WAIT_SECONDS = 2 };

/* Checks the token: 401, or ERROR_UNAVAILABLE before the first snapshot of the tokens. */
static enum error authenticate(const struct worker *worker, const struct request *request,
                               struct query *query)
{
    unsigned char digest[BEARER_DIGEST_BYTES];
    bool is_complete;
    int64_t begun = clock_us();
    enum error error = bearer_digest(request_parameter(request, "HTTP_AUTHORIZATION"), digest);

    if (error != ERROR_NONE)
        return error;
    query->is_known = keyring_find_token(worker->keyring, digest, (int64_t)time(NULL), query->label,
                                         &query->asked.scope, &is_complete);
    metrics_observe(METRICS_VERIFICATION, clock_us() - begun);
    if (query->is_known)
        return ERROR_NONE;
    return is_complete ? ERROR_INVALID_TOKEN : ERROR_UNAVAILABLE;
}

/* The contract's ladder: the first check that fails answers. */
static enum error take_query(const struct worker *worker, const struct request *request,
                             struct query *query)
{
    const char *text = request_parameter(request, "QUERY_STRING");
    enum error error = request_expect_method(request, "GET", "HEAD");

    if (error == ERROR_NONE)
        error = worker_check_deadline(worker, request);
    if (error == ERROR_NONE)
        error = authenticate(worker, request, query);
    if (error == ERROR_NONE)
        error = query_string_parse(text != NULL ? text : "", &query->asked.parameters);
    return error;
}

static void answer(struct worker *worker, struct request *request)
{
    struct query query = {.request = request, .deadline = worker_deadline(worker, request)};
    enum error error = take_query(worker, request, &query);

    request_limit_writes(request, worker->config->deadline_ms);
    query.form = gzip_is_accepted(request_parameter(request, "HTTP_ACCEPT_ENCODING"))
                     ? ANSWER_GZIP
                     : ANSWER_PLAIN;
    if (error != ERROR_NONE)
        query_refuse(worker, &query, error);
    else
        lead_answer(worker, &query);
    scope_release(query.asked.scope);
}

int main(int argc, char **argv)
{
    static const struct service SERVICE = {
        .program = {.name = "query.fcgi",
                    .endpoint = "query",
                    .errors = {ERROR_MISSING_TOKEN, ERROR_INVALID_QUERY}},
        .usage = USAGE,
        .wait_seconds = DATABASE_WAIT_SECONDS,
        .variable = "VIBETEA_SUBSCRIBER_TOKEN",
        .add_credentials = keyring_add_token,
        .plan = &REFRESH_TOKENS,
        /* A source that no event has. */
        .probe = {"query probe", "SELECT FROM public.get_hourly_aggregates(0, '')"},
        .answer = answer,
    };

    return service_main(&SERVICE, argc, argv);
}
