/*
 * query.fcgi: answers a dashboard with the hourly counts of the data model's
 * get_hourly_aggregates, or with their totals. README.md describes the HTTP side.
 */
#include "auth/bearer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "http/query_string.h"
#include "process/service.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <time.h>

static const char ALLOW[] = "GET, HEAD, OPTIONS";
static const char USAGE[] = "usage: query.fcgi [-t | -V]\n"
                            "Serves FastCGI on a listening socket that it inherits.\n";

/* Dashboards give up after a few seconds. */
enum { DATABASE_WAIT_SECONDS = 2 };

/* NULL, NULL: no limit to certain sources. */
static const char *const STATEMENTS[] = {
    [QUERY_BY_SOURCE_AND_HOUR] = "SELECT source, date, hour, event_count"
                                 " FROM public.get_hourly_aggregates($1, $2)",
    [QUERY_BY_HOUR] = "SELECT date, hour, event_count"
                      " FROM public.get_hourly_totals($1, $2, NULL, NULL)",
    [QUERY_BY_SOURCE] = "SELECT source, event_count"
                        " FROM public.get_source_totals($1, $2, NULL, NULL)",
};

/* What its reply and its line in the log need to know of a request. */
struct query {
    struct query_string parameters;
    struct timespec fetched_at;
    int rows;
    bool is_known;                       /* the token */
    char label[KEYRING_LABEL_BYTES + 1]; /* the known token's */
};

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
                                         &is_complete);
    metrics_observe(METRICS_VERIFICATION, clock_us() - begun);
    if (query->is_known)
        return ERROR_NONE;
    return is_complete ? ERROR_INVALID_TOKEN : ERROR_UNAVAILABLE;
}

/* Runs the query; the rows stay in the connection until worker_release. */
static enum error fetch(struct worker *worker, const struct request *request, struct query *query)
{
    const struct query_string *asked = &query->parameters;
    uint32_t days = htonl((uint32_t)asked->days);
    const struct database_parameter parameters[] = {
        {DATABASE_INT4, &days, sizeof(days)},
        {DATABASE_TEXT, asked->source_length > 0 ? asked->source : NULL, asked->source_length},
    };
    enum database_verdict verdict;

    clock_gettime(CLOCK_REALTIME, &query->fetched_at);
    verdict = worker_call(worker, STATEMENTS[asked->grouping], parameters, 2,
                          worker_deadline(worker, request));
    return worker_error(verdict);
}

/* The contract's ladder: the first check that fails answers. */
static enum error take_query(struct worker *worker, struct request *request, struct query *query)
{
    const char *text = request_parameter(request, "QUERY_STRING");
    enum error error = request_expect_method(request, "GET", "HEAD");

    if (error == ERROR_NONE)
        error = worker_check_deadline(worker, request);
    if (error == ERROR_NONE)
        error = authenticate(worker, request, query);
    if (error == ERROR_NONE)
        error = query_string_parse(text != NULL ? text : "", &query->parameters);
    if (error == ERROR_NONE)
        error = fetch(worker, request, query);
    return error;
}

/* PostgreSQL's date: days since 2000-01-01, in Unix time. */
static const int64_t EPOCH_2000 = INT64_C(946684800);

enum { SECONDS_PER_DAY = 86400, DATE_BYTES = sizeof("2026-02-03") };

/* Formats a date; "" for one without a year of four digits (infinity). */
static void format_date(int64_t days, char text[static DATE_BYTES])
{
    time_t seconds = EPOCH_2000 + days * SECONDS_PER_DAY;
    struct tm tm;

    text[0] = '\0';
    if (gmtime_r(&seconds, &tm) != NULL && tm.tm_year > -1900 && tm.tm_year <= 9999 - 1900)
        strftime(text, DATE_BYTES, "%Y-%m-%d", &tm);
}

/* The JSON members that the rows of one hour share. */
struct hour_text {
    int64_t days;
    int64_t hour; /* NO_HOUR for infinity, which an administrator can store */
    char text[80];
    int length;
};

enum { NO_HOUR = -1 };

static void format_hour(struct hour_text *out, int64_t days, int64_t hour)
{
    char date[DATE_BYTES];
    char number[8] = "null";

    format_date(days, date);
    if (hour != NO_HOUR)
        snprintf(number, sizeof(number), "%d", (int)hour);
    out->days = days;
    out->hour = hour;
    out->length = snprintf(out->text, sizeof(out->text),
                           ",\"date\":\"%s\",\"hour\":%s,\"eventCount\":", date, number);
}

static int64_t hour_number(const struct database *db, int row, int column)
{
    return database_is_null(db, row, column) ? NO_HOUR : database_integer(db, row, column);
}

/* A month of ten sources is 7200 rows, so each hour is formatted once. */
static void write_rows(struct buffer *out, const struct database *db, int rows)
{
    static const char FIRST[] = "{\"source\":";
    static const char NEXT[] = "},{\"source\":";
    struct hour_text hour = {.length = 0};

    for (int row = 0; row < rows; row++) {
        size_t length;
        const char *source = database_bytes(db, row, 0, &length);
        int64_t days = database_integer(db, row, 1);
        int64_t number = hour_number(db, row, 2);

        if (row == 0 || days != hour.days || number != hour.hour)
            format_hour(&hour, days, number);
        if (row == 0)
            buffer_add(out, FIRST, sizeof(FIRST) - 1);
        else
            buffer_add(out, NEXT, sizeof(NEXT) - 1);
        buffer_add_json(out, source, length);
        buffer_add(out, hour.text, (size_t)hour.length);
        buffer_add_integer(out, database_integer(db, row, 3));
    }
    if (rows > 0)
        buffer_add(out, "}", 1);
}

/* The rows of totals, each of which has members of its own. */
static void write_totals(struct buffer *out, const struct database *db, int rows,
                         enum query_grouping grouping)
{
    for (int row = 0; row < rows; row++) {
        struct hour_text hour;
        size_t length;

        buffer_add_text(out, row == 0 ? "{" : ",{");
        if (grouping == QUERY_BY_HOUR) {
            format_hour(&hour, database_integer(db, row, 0), hour_number(db, row, 1));
            buffer_add(out, hour.text + 1, (size_t)hour.length - 1);
            buffer_add_integer(out, database_integer(db, row, 2));
        } else {
            const char *source = database_bytes(db, row, 0, &length);

            buffer_add_text(out, "\"source\":");
            buffer_add_json(out, source, length);
            buffer_add_text(out, ",\"eventCount\":");
            buffer_add_integer(out, database_integer(db, row, 1));
        }
        buffer_add(out, "}", 1);
    }
}

static void write_aggregates(struct buffer *out, const struct database *db,
                             const struct query *query)
{
    int rows = database_rows(db);
    struct tm tm;
    char second[32];

    buffer_add_text(out, "{\"aggregates\":[");
    if (query->parameters.grouping == QUERY_BY_SOURCE_AND_HOUR)
        write_rows(out, db, rows);
    else
        write_totals(out, db, rows, query->parameters.grouping);
    gmtime_r(&query->fetched_at.tv_sec, &tm);
    strftime(second, sizeof(second), "%Y-%m-%dT%H:%M:%S", &tm);
    buffer_printf(
        out, "],\"meta\":{\"totalCount\":%d,\"daysRequested\":%d,\"fetchedAt\":\"%s.%03ldZ\"}}",
        rows, query->parameters.days, second, query->fetched_at.tv_nsec / 1000000);
}

static void log_request(const struct worker *worker, const struct request *request,
                        const struct query *query, enum error error, bool is_delivered)
{
    struct log_line line;

    if (!worker_log_begin(&line, worker, request, error, query->is_known))
        return;
    if (query->is_known)
        log_string(&line, "token", query->label);
    if (error == ERROR_NONE) {
        log_number(&line, "days", query->parameters.days);
        log_number(&line, "rows", query->rows);
    }
    if (error == ERROR_NONE && query->parameters.source_length > 0)
        log_bytes(&line, "source", query->parameters.source, query->parameters.source_length);
    if (error == ERROR_NONE && query->parameters.grouping != QUERY_BY_SOURCE_AND_HOUR)
        log_string(&line, "group_by",
                   query->parameters.grouping == QUERY_BY_HOUR ? "hour" : "source");
    worker_log_end(&line, request, is_delivered);
}

static void answer(struct worker *worker, struct request *request)
{
    struct query query = {.label = ""};
    enum error error = take_query(worker, request, &query);
    bool is_delivered;

    buffer_reset(&worker->reply);
    if (error == ERROR_NONE) {
        query.rows = database_rows(worker->db);
        write_aggregates(&worker->reply, worker->db, &query);
    } else {
        reply_add_error(&worker->reply, error);
    }
    worker_release(worker);
    error = reply_settle(&worker->reply, error);
    is_delivered = reply_send(request, error, ALLOW, &worker->reply);
    worker_count(worker, request, error);
    log_request(worker, request, &query, error, is_delivered);
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
