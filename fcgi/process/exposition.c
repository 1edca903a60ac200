#include "process/exposition.h"

#include "base/metrics.h"

#include <inttypes.h>
#include <string.h>

static const struct histogram {
    const char *name;
    const char *help;
} HISTOGRAMS[METRICS_HISTOGRAMS] = {
    [METRICS_REQUEST] = {"steep_request_duration_seconds",
                         "Time from nginx passing a request on to the answer."},
    [METRICS_VERIFICATION] = {"steep_verification_duration_seconds",
                              "Time to verify a signature or a token."},
    [METRICS_DATABASE] = {"steep_database_duration_seconds",
                          "Time a request spent in the database or waiting for it."},
};

/* Which programs have a counter. */
enum kind { OF_ALL, OF_BATCHES, OF_ANSWERS };

/* Counters of the same name follow each other, as the format requires. */
static const struct counter {
    enum metric metric;
    enum kind kind;
    const char *name;
    const char *label; /* NULL for none */
    const char *value;
    const char *help; /* of the first counter with this name */
} COUNTERS[] = {
    {METRIC_BATCHES_STORED, OF_BATCHES, "steep_batches_total", "result", "stored",
     "Batches with a valid signature, by result."},
    {METRIC_BATCHES_REFUSED, OF_BATCHES, "steep_batches_total", "result", "refused", NULL},
    {METRIC_BATCHES_UNAVAILABLE, OF_BATCHES, "steep_batches_total", "result", "unavailable", NULL},
    {METRIC_BATCHES_FAILED, OF_BATCHES, "steep_batches_total", "result", "failed", NULL},
    {METRIC_EVENTS_INSERTED, OF_BATCHES, "steep_events_total", "result", "inserted",
     "Events of these batches, by result; not_stored counts the other events of a batch that was "
     "not stored."},
    {METRIC_EVENTS_DUPLICATE, OF_BATCHES, "steep_events_total", "result", "duplicate", NULL},
    {METRIC_EVENTS_REFUSED, OF_BATCHES, "steep_events_total", "result", "refused", NULL},
    {METRIC_EVENTS_NOT_STORED, OF_BATCHES, "steep_events_total", "result", "not_stored", NULL},
    {METRIC_FOREIGN_IDS, OF_BATCHES, "steep_foreign_ids_total", NULL, NULL,
     "Duplicates that are stored under another source."},
    {METRIC_ANSWERS_SHARED, OF_ANSWERS, "steep_answers_shared_total", NULL, NULL,
     "Answers from the statement of another request that asked the same."},
    {METRIC_ANSWERS_STREAMED, OF_ANSWERS, "steep_answers_streamed_total", NULL, NULL,
     "Answers that were too large to be built whole, and were sent in parts."},
    {METRIC_ANSWERS_BROKEN, OF_ANSWERS, "steep_answers_broken_total", NULL, NULL,
     "Answers in parts that were broken off, after an error."},
    {METRIC_CONNECTIONS, OF_ALL, "steep_connections_total", NULL, NULL,
     "Connections accepted from nginx."},
    {METRIC_RECONNECTS, OF_ALL, "steep_database_reconnects_total", NULL, NULL,
     "Connections to the database that replaced a lost one."},
    {METRIC_CONNECT_FAILURES, OF_ALL, "steep_database_connect_failures_total", NULL, NULL,
     "Failed attempts to connect to the database."},
};

/* Errors of every program, besides its own. */
static const struct error_range EVERY = {ERROR_METHOD_NOT_ALLOWED, ERROR_INVALID_REQUEST};

static void write_head(struct buffer *out, const char *name, const char *type, const char *help)
{
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static bool are_alike(enum error a, enum error b)
{
    return error_entry(a)->status == error_entry(b)->status &&
           strcmp(error_entry(a)->code, error_entry(b)->code) == 0;
}

static uint64_t sum_alike(enum error error)
{
    uint64_t sum = 0;

    for (enum error e = ERROR_NONE; e < ERROR_COUNT; e++)
        sum += are_alike(e, error) ? metrics_requests(e) : 0;
    return sum;
}

/* Errors with the same status and code share a line, which stands where the first of them does. */
static void write_requests(struct buffer *out, const struct exposition_program *program,
                           struct error_range range)
{
    for (enum error error = range.first; error <= range.last; error++) {
        bool is_written = false;

        for (enum error e = EVERY.first; e < error && e <= EVERY.last; e++)
            is_written = is_written || are_alike(e, error);
        if (!is_written)
            buffer_printf(out,
                          "steep_requests_total{endpoint=\"%s\",status=\"%d\",code=\"%s\"} %" PRIu64
                          "\n",
                          program->endpoint, error_entry(error)->status, error_entry(error)->code,
                          sum_alike(error));
    }
}

static void write_counters(struct buffer *out, const struct exposition_program *program)
{
    for (size_t i = 0; i < sizeof(COUNTERS) / sizeof(COUNTERS[0]); i++) {
        const struct counter *counter = &COUNTERS[i];

        if (counter->kind != OF_ALL && (counter->kind == OF_BATCHES) != program->takes_batches)
            continue;
        if (counter->help != NULL)
            write_head(out, counter->name, "counter", counter->help);
        buffer_printf(out, "%s{endpoint=\"%s\"", counter->name, program->endpoint);
        if (counter->label != NULL)
            buffer_printf(out, ",%s=\"%s\"", counter->label, counter->value);
        buffer_printf(out, "} %" PRIu64 "\n", metrics_count(counter->metric));
    }
}

static void write_reasons(struct buffer *out, const struct exposition_program *program)
{
    if (!program->takes_batches)
        return;
    write_head(out, "steep_events_refused_total", "counter", "Refused events, by reason.");
    for (enum error e = ERROR_INVALID_EVENT; e <= ERROR_INVALID_PAYLOAD; e++)
        buffer_printf(out,
                      "steep_events_refused_total{endpoint=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                      program->endpoint, error_entry(e)->code, metrics_refused(e));
}

static void write_histogram(struct buffer *out, const struct exposition_program *program,
                            enum metrics_histogram number)
{
    const struct histogram *histogram = &HISTOGRAMS[number];
    struct metrics_distribution read = metrics_distribution(number);
    uint64_t count = 0;

    write_head(out, histogram->name, "histogram", histogram->help);
    for (int i = 0; i < METRICS_BUCKETS; i++) {
        count += read.buckets[i];
        buffer_printf(out, "%s_bucket{endpoint=\"%s\",le=\"%g\"} %" PRIu64 "\n", histogram->name,
                      program->endpoint, (double)read.bounds_us[i] / 1e6, count);
    }
    count += read.buckets[METRICS_BUCKETS];
    buffer_printf(out, "%s_bucket{endpoint=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", histogram->name,
                  program->endpoint, count);
    buffer_printf(out, "%s_sum{endpoint=\"%s\"} %" PRIu64 ".%06" PRIu64 "\n", histogram->name,
                  program->endpoint, read.sum_us / 1000000, read.sum_us % 1000000);
    buffer_printf(out, "%s_count{endpoint=\"%s\"} %" PRIu64 "\n", histogram->name,
                  program->endpoint, count);
}

static void write_gauge(struct buffer *out, const struct exposition_program *program,
                        const char *name, const char *help, int64_t value)
{
    write_head(out, name, "gauge", help);
    buffer_printf(out, "%s{endpoint=\"%s\"} %" PRId64 "\n", name, program->endpoint, value);
}

static void write_seconds(struct buffer *out, const struct exposition_program *program,
                          const char *name, const char *help, int64_t ms)
{
    write_head(out, name, "gauge", help);
    buffer_printf(out, "%s{endpoint=\"%s\"} %" PRId64 ".%03" PRId64 "\n", name, program->endpoint,
                  ms / 1000, ms % 1000);
}

static void write_state(struct buffer *out, const struct exposition_program *program,
                        const struct exposition_state *state)
{
    write_gauge(out, program, "steep_ready",
                "1 if the keyring was read in the last seconds and not all recent requests failed.",
                state->is_ready);
    write_gauge(out, program, "steep_workers", "Worker threads.", state->workers);
    write_gauge(out, program, "steep_workers_busy", "Worker threads with a request in hand.",
                state->workers_busy);
    write_gauge(out, program, "steep_database_connections",
                "Connections to the database that the workers share, at most.", state->connections);
    write_seconds(out, program, "steep_longest_request_seconds",
                  "Age of the oldest request in hand, or time since its answer last went on.",
                  state->longest_ms);
    if (state->keyring_age_ms >= 0)
        write_seconds(out, program, "steep_keyring_age_seconds",
                      "Time since the credentials were read from the database.",
                      state->keyring_age_ms);
    write_head(out, "steep_keyring_entries", "gauge", "Keys or tokens, by origin.");
    buffer_printf(out, "steep_keyring_entries{endpoint=\"%s\",origin=\"environment\"} %zu\n",
                  program->endpoint, state->keyring_environment);
    buffer_printf(out, "steep_keyring_entries{endpoint=\"%s\",origin=\"database\"} %zu\n",
                  program->endpoint, state->keyring_database);
    write_head(out, "steep_build_info", "gauge", "1; the labels name the program and its version.");
    buffer_printf(out, "steep_build_info{endpoint=\"%s\",program=\"%s\",version=\"%s\"} 1\n",
                  program->endpoint, program->name, STEEP_VERSION);
    write_gauge(out, program, "process_start_time_seconds", "Unix time of the start.",
                state->started);
}

void exposition_write(struct buffer *out, const struct exposition_program *program,
                      const struct exposition_state *state)
{
    write_head(out, "steep_requests_total", "counter", "Requests, by status and error code.");
    write_requests(out, program, (struct error_range){ERROR_NONE, ERROR_NONE});
    write_requests(out, program, EVERY);
    write_requests(out, program, program->errors);
    write_counters(out, program);
    write_reasons(out, program);
    for (enum metrics_histogram number = 0; number < METRICS_HISTOGRAMS; number++)
        write_histogram(out, program, number);
    write_state(out, program, state);
}
