#include "base/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

enum { BUCKETS = 15 };

struct bound {
    int64_t us; /* the most that counts */
    const char *seconds;
};

/*
 * A batch of 10 events takes 1 ms, one of 1000 some 20, a month of counts 5 to 10;
 * a lock is waited for 5 s, a statement runs 10, and a request ends after 20.
 */
static const struct bound WHOLE[BUCKETS] = {
    {500, "0.0005"},  {1000, "0.001"},  {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},
    {25000, "0.025"}, {50000, "0.05"},  {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},
    {1000000, "1"},   {2500000, "2.5"}, {5000000, "5"},   {10000000, "10"}, {20000000, "20"},
};

/* A token takes some microseconds; a signature 55 over nothing, 600 over 270 KB, 11,000 over 5 MiB.
 */
static const struct bound SHORT[BUCKETS] = {
    {5, "5e-06"},     {10, "1e-05"},    {25, "2.5e-05"}, {50, "5e-05"},    {100, "0.0001"},
    {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"}, {2500, "0.0025"}, {5000, "0.005"},
    {10000, "0.01"},  {25000, "0.025"}, {50000, "0.05"}, {100000, "0.1"},  {250000, "0.25"},
};

static const struct histogram {
    const char *name;
    const char *help;
    const struct bound *bounds;
} HISTOGRAMS[METRICS_HISTOGRAMS] = {
    [METRICS_REQUEST] = {"steep_request_duration_seconds",
                         "Time from nginx's handing over of a request to its answer.", WHOLE},
    [METRICS_VERIFICATION] = {"steep_verification_duration_seconds",
                              "Time that the check of a signature or token took.", SHORT},
    [METRICS_DATABASE] = {"steep_database_duration_seconds",
                          "Time a request spent in the database, or in waiting for it.", WHOLE},
};

/* The text is written by families: those of the same name follow each other. */
static const struct counter {
    enum metric metric;
    bool is_of_batches;
    const char *name;
    const char *label; /* NULL for none */
    const char *value;
    const char *help;
} COUNTERS[] = {
    {METRIC_BATCHES_STORED, true, "steep_batches_total", "result", "stored",
     "Batches with a good signature, by what became of them."},
    {METRIC_BATCHES_REFUSED, true, "steep_batches_total", "result", "refused", NULL},
    {METRIC_BATCHES_UNAVAILABLE, true, "steep_batches_total", "result", "unavailable", NULL},
    {METRIC_BATCHES_FAILED, true, "steep_batches_total", "result", "failed", NULL},
    {METRIC_EVENTS_INSERTED, true, "steep_events_total", "result", "inserted",
     "Events of these batches; not_stored are those that share a batch with what was in the way."},
    {METRIC_EVENTS_DUPLICATE, true, "steep_events_total", "result", "duplicate", NULL},
    {METRIC_EVENTS_REFUSED, true, "steep_events_total", "result", "refused", NULL},
    {METRIC_EVENTS_NOT_STORED, true, "steep_events_total", "result", "not_stored", NULL},
    {METRIC_FOREIGN_IDS, true, "steep_foreign_ids_total", NULL, NULL,
     "Duplicates whose stored source is another one."},
    {METRIC_RECONNECTS, false, "steep_database_reconnects_total", NULL, NULL,
     "Connections to the database that took the place of one that was lost."},
    {METRIC_CONNECT_FAILURES, false, "steep_database_connect_failures_total", NULL, NULL,
     "Attempts to connect to the database that failed."},
};

/* Every program has these, besides its own. */
static const struct error_range EVERY = {ERROR_METHOD_NOT_ALLOWED, ERROR_INVALID_REQUEST};

static atomic_uint_fast64_t counts[METRIC_COUNT];
static atomic_uint_fast64_t requests[ERROR_COUNT];
static atomic_uint_fast64_t refused[ERROR_COUNT];
static struct {
    atomic_uint_fast64_t buckets[BUCKETS + 1]; /* each by itself; the last is what is beyond */
    atomic_uint_fast64_t sum_us;
} histograms[METRICS_HISTOGRAMS];

static void add(atomic_uint_fast64_t *counter, uint64_t count)
{
    atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

static uint64_t get(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_add(enum metric metric, uint64_t count)
{
    add(&counts[metric], count);
}

void metrics_observe(enum metrics_histogram histogram, int64_t us)
{
    const struct bound *bounds = HISTOGRAMS[histogram].bounds;
    int bucket = 0;

    while (bucket < BUCKETS && us > bounds[bucket].us)
        bucket++;
    add(&histograms[histogram].buckets[bucket], 1);
    add(&histograms[histogram].sum_us, us > 0 ? (uint64_t)us : 0);
}

void metrics_count_request(enum error error)
{
    add(&requests[error], 1);
}

void metrics_count_refused(enum error error)
{
    add(&refused[error], 1);
}

static void write_head(struct reply_text *out, const char *name, const char *type, const char *help)
{
    reply_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static bool is_alike(enum error a, enum error b)
{
    return error_entry(a)->status == error_entry(b)->status &&
           strcmp(error_entry(a)->code, error_entry(b)->code) == 0;
}

static uint64_t sum_alike(enum error error)
{
    uint64_t sum = 0;

    for (enum error e = ERROR_NONE; e < ERROR_COUNT; e++)
        sum += is_alike(e, error) ? get(&requests[e]) : 0;
    return sum;
}

/* Errors that are one to a client are one here as well, and stand where the first of them does. */
static void write_requests(struct reply_text *out, const struct metrics_state *state,
                           struct error_range range)
{
    for (enum error error = range.first; error <= range.last; error++) {
        bool is_written = false;

        for (enum error e = EVERY.first; e < error && e <= EVERY.last; e++)
            is_written = is_written || is_alike(e, error);
        if (!is_written)
            reply_printf(out,
                         "steep_requests_total{endpoint=\"%s\",status=\"%d\",code=\"%s\"} %" PRIu64
                         "\n",
                         state->endpoint, error_entry(error)->status, error_entry(error)->code,
                         sum_alike(error));
    }
}

static void write_counters(struct reply_text *out, const struct metrics_state *state)
{
    for (size_t i = 0; i < sizeof(COUNTERS) / sizeof(COUNTERS[0]); i++) {
        const struct counter *counter = &COUNTERS[i];

        if (counter->is_of_batches && !state->takes_batches)
            continue;
        if (counter->help != NULL)
            write_head(out, counter->name, "counter", counter->help);
        reply_printf(out, "%s{endpoint=\"%s\"", counter->name, state->endpoint);
        if (counter->label != NULL)
            reply_printf(out, ",%s=\"%s\"", counter->label, counter->value);
        reply_printf(out, "} %" PRIu64 "\n", get(&counts[counter->metric]));
    }
}

static void write_reasons(struct reply_text *out, const struct metrics_state *state)
{
    if (!state->takes_batches)
        return;
    write_head(out, "steep_events_refused_total", "counter", "Events refused, by the reason.");
    for (enum error e = ERROR_INVALID_EVENT; e <= ERROR_INVALID_PAYLOAD; e++)
        reply_printf(out, "steep_events_refused_total{endpoint=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                     state->endpoint, error_entry(e)->code, get(&refused[e]));
}

static void write_histogram(struct reply_text *out, const struct metrics_state *state,
                            enum metrics_histogram number)
{
    const struct histogram *histogram = &HISTOGRAMS[number];
    uint64_t sum_us = get(&histograms[number].sum_us);
    uint64_t count = 0;

    write_head(out, histogram->name, "histogram", histogram->help);
    for (int i = 0; i <= BUCKETS; i++) {
        count += get(&histograms[number].buckets[i]);
        reply_printf(out, "%s_bucket{endpoint=\"%s\",le=\"%s\"} %" PRIu64 "\n", histogram->name,
                     state->endpoint, i < BUCKETS ? histogram->bounds[i].seconds : "+Inf", count);
    }
    reply_printf(out, "%s_sum{endpoint=\"%s\"} %" PRIu64 ".%06" PRIu64 "\n", histogram->name,
                 state->endpoint, sum_us / 1000000, sum_us % 1000000);
    reply_printf(out, "%s_count{endpoint=\"%s\"} %" PRIu64 "\n", histogram->name, state->endpoint,
                 count);
}

static void write_gauge(struct reply_text *out, const struct metrics_state *state, const char *name,
                        const char *help, int64_t value)
{
    write_head(out, name, "gauge", help);
    reply_printf(out, "%s{endpoint=\"%s\"} %" PRId64 "\n", name, state->endpoint, value);
}

static void write_seconds(struct reply_text *out, const struct metrics_state *state,
                          const char *name, const char *help, int64_t ms)
{
    write_head(out, name, "gauge", help);
    reply_printf(out, "%s{endpoint=\"%s\"} %" PRId64 ".%03" PRId64 "\n", name, state->endpoint,
                 ms / 1000, ms % 1000);
}

static void write_state(struct reply_text *out, const struct metrics_state *state)
{
    write_gauge(out, state, "steep_ready",
                "1 where the keyring is read and the database was reached in the last seconds.",
                state->is_ready);
    write_gauge(out, state, "steep_workers", "Threads that answer requests.", state->workers);
    write_gauge(out, state, "steep_workers_busy", "Those with a request in hand.",
                state->workers_busy);
    write_seconds(out, state, "steep_longest_request_seconds",
                  "How long the slowest of these has been at it.", state->longest_ms);
    if (state->keyring_age_ms >= 0)
        write_seconds(out, state, "steep_keyring_age_seconds",
                      "Time since the credentials were read from the database.",
                      state->keyring_age_ms);
    write_head(out, "steep_keyring_entries", "gauge", "Keys, or tokens, by where they are from.");
    reply_printf(out, "steep_keyring_entries{endpoint=\"%s\",origin=\"environment\"} %zu\n",
                 state->endpoint, state->keyring_fixed);
    reply_printf(out, "steep_keyring_entries{endpoint=\"%s\",origin=\"database\"} %zu\n",
                 state->endpoint, state->keyring_read);
    write_head(out, "steep_build_info", "gauge", "1; the labels say what is running.");
    reply_printf(out, "steep_build_info{endpoint=\"%s\",program=\"%s\",version=\"%s\"} 1\n",
                 state->endpoint, state->program, STEEP_VERSION);
    write_gauge(out, state, "process_start_time_seconds", "Unix time of the start.",
                state->started);
}

void metrics_write(struct reply_text *out, const struct metrics_state *state)
{
    write_head(out, "steep_requests_total", "counter",
               "Requests answered, by status and the code of the error.");
    write_requests(out, state, (struct error_range){ERROR_NONE, ERROR_NONE});
    write_requests(out, state, EVERY);
    write_requests(out, state, state->errors);
    write_counters(out, state);
    write_reasons(out, state);
    for (enum metrics_histogram number = 0; number < METRICS_HISTOGRAMS; number++)
        write_histogram(out, state, number);
    write_state(out, state);
}
