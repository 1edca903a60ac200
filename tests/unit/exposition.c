#include "process/exposition.h"
#include "base/metrics.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct exposed {
    struct exposition_program program;
    struct exposition_state state;
};

static const struct exposed INGEST = {
    .program = {.name = "ingest.fcgi",
                .endpoint = "ingest",
                .takes_batches = true,
                .errors = {ERROR_MISSING_SIGNATURE, ERROR_INVALID_PAYLOAD}},
    .state = {.is_ready = true,
              .workers = 8,
              .workers_busy = 3,
              .connections = 2,
              .longest_ms = 1234,
              .keyring_age_ms = 56,
              .keyring_environment = 1,
              .keyring_database = 20,
              .started = 1770129300},
};

static struct buffer out;

static const char *written(const struct exposed *exposed)
{
    buffer_reset(&out);
    exposition_write(&out, &exposed->program, &exposed->state);
    assert_false(out.is_short);
    return out.text;
}

/* Whether the text has this line. */
static bool has_line(const char *text, const char *line)
{
    for (const char *at = strstr(text, line); at != NULL; at = strstr(at + 1, line)) {
        if ((at == text || at[-1] == '\n') && at[strlen(line)] == '\n')
            return true;
    }
    return false;
}

static void assert_line(const struct exposed *exposed, const char *line)
{
    if (!has_line(written(exposed), line))
        fail_msg("there is no line %s", line);
}

static void assert_no(const struct exposed *exposed, const char *part)
{
    assert_null(strstr(written(exposed), part));
}

static void counts_what_is_added(void **state)
{
    (void)state;
    assert_line(&INGEST, "steep_events_total{endpoint=\"ingest\",result=\"inserted\"} 0");
    metrics_add(METRIC_EVENTS_INSERTED, 1000);
    metrics_add(METRIC_EVENTS_INSERTED, 0);
    metrics_add(METRIC_EVENTS_INSERTED, UINT32_MAX);
    assert_line(&INGEST, "steep_events_total{endpoint=\"ingest\",result=\"inserted\"} 4294968295");
    assert_line(&INGEST, "steep_events_total{endpoint=\"ingest\",result=\"duplicate\"} 0");
}

static void counts_requests_by_status_and_code(void **state)
{
    (void)state;
    metrics_count_request(ERROR_NONE);
    metrics_count_request(ERROR_NONE);
    metrics_count_request(ERROR_UNKNOWN_SOURCE);
    assert_line(&INGEST, "steep_requests_total{endpoint=\"ingest\",status=\"200\",code=\"ok\"} 2");
    assert_line(
        &INGEST,
        "steep_requests_total{endpoint=\"ingest\",status=\"401\",code=\"unknown_source\"} 1");
}

static void merges_errors_that_look_the_same_to_a_client(void **state)
{
    static const char LINE[] =
        "steep_requests_total{endpoint=\"query\",status=\"400\",code=\"invalid_request\"} 2";
    struct exposed query = INGEST;
    const char *first;
    (void)state;
    query.program.endpoint = "query";
    query.program.takes_batches = false;
    query.program.errors = (struct error_range){ERROR_MISSING_TOKEN, ERROR_INVALID_QUERY};
    metrics_count_request(ERROR_INVALID_REQUEST);
    metrics_count_request(ERROR_INVALID_QUERY);
    assert_line(&query, LINE);
    first = strstr(written(&query), "invalid_request");
    assert_null(strstr(first + 1, "invalid_request"));
    assert_line(&query,
                "steep_requests_total{endpoint=\"query\",status=\"400\",code=\"invalid_days\"} 0");
    assert_no(&query, "steep_batches");
    assert_no(&query, "steep_events");
    assert_no(&query, "empty_batch");
}

static void counts_a_duration_up_to_and_including_the_bound(void **state)
{
    (void)state;
    metrics_observe(METRICS_DATABASE, 0);
    metrics_observe(METRICS_DATABASE, 500);
    metrics_observe(METRICS_DATABASE, 501);
    metrics_observe(METRICS_DATABASE, 20000000);
    metrics_observe(METRICS_DATABASE, 20000001);
    assert_line(&INGEST,
                "steep_database_duration_seconds_bucket{endpoint=\"ingest\",le=\"0.0005\"} 2");
    assert_line(&INGEST,
                "steep_database_duration_seconds_bucket{endpoint=\"ingest\",le=\"0.001\"} 3");
    assert_line(&INGEST, "steep_database_duration_seconds_bucket{endpoint=\"ingest\",le=\"10\"} 3");
    assert_line(&INGEST, "steep_database_duration_seconds_bucket{endpoint=\"ingest\",le=\"20\"} 4");
    assert_line(&INGEST,
                "steep_database_duration_seconds_bucket{endpoint=\"ingest\",le=\"+Inf\"} 5");
    assert_line(&INGEST, "steep_database_duration_seconds_sum{endpoint=\"ingest\"} 40.001002");
    assert_line(&INGEST, "steep_database_duration_seconds_count{endpoint=\"ingest\"} 5");
    assert_line(&INGEST, "steep_verification_duration_seconds_count{endpoint=\"ingest\"} 0");
}

/* The value of a series. */
static unsigned long long value_of(const char *series)
{
    const char *at = strstr(written(&INGEST), series);

    assert_non_null(at);
    return strtoull(at + strlen(series), NULL, 10);
}

/* Each bound's text says its microseconds: what lasts that long counts, and what lasts longer not.
 */
static void labels_each_bucket_with_its_bound(void **state)
{
    static const char *const BOUNDS[METRICS_HISTOGRAMS] = {
        [METRICS_REQUEST] = "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 20",
        [METRICS_VERIFICATION] = "5e-06 1e-05 2.5e-05 5e-05 0.0001 0.00025 0.0005 0.001 0.0025 "
                                 "0.005 0.01 0.025 0.05 0.1 0.25",
        [METRICS_DATABASE] = "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 20",
    };
    static const char *const NAMES[] = {"request", "verification", "database"};
    (void)state;
    for (enum metrics_histogram i = 0; i < METRICS_HISTOGRAMS; i++) {
        for (const char *text = BOUNDS[i]; *text != '\0'; text += strspn(text, " ")) {
            size_t length = strcspn(text, " ");
            int64_t us = (int64_t)(strtod(text, NULL) * 1e6 + 0.5);
            char series[120];
            unsigned long long before;

            snprintf(series, sizeof(series),
                     "steep_%s_duration_seconds_bucket{endpoint=\"ingest\",le=\"%.*s\"} ", NAMES[i],
                     (int)length, text);
            before = value_of(series);
            metrics_observe(i, us);
            assert_int_equal(value_of(series), before + 1);
            metrics_observe(i, us + 1);
            assert_int_equal(value_of(series), before + 1);
            text += length;
        }
    }
}

static void counts_refused_events_by_reason(void **state)
{
    (void)state;
    metrics_count_refused(ERROR_INVALID_EVENT);
    metrics_count_refused(ERROR_INVALID_PAYLOAD);
    metrics_count_refused(ERROR_INVALID_PAYLOAD);
    assert_line(&INGEST,
                "steep_events_refused_total{endpoint=\"ingest\",reason=\"invalid_event\"} 1");
    assert_line(&INGEST,
                "steep_events_refused_total{endpoint=\"ingest\",reason=\"invalid_payload\"} 2");
    assert_line(&INGEST,
                "steep_events_refused_total{endpoint=\"ingest\",reason=\"source_mismatch\"} 0");
}

static void writes_the_state(void **state)
{
    struct exposed unread = INGEST;
    (void)state;
    assert_line(&INGEST, "steep_ready{endpoint=\"ingest\"} 1");
    assert_line(&INGEST, "steep_workers{endpoint=\"ingest\"} 8");
    assert_line(&INGEST, "steep_workers_busy{endpoint=\"ingest\"} 3");
    assert_line(&INGEST, "steep_database_connections{endpoint=\"ingest\"} 2");
    assert_line(&INGEST, "steep_longest_request_seconds{endpoint=\"ingest\"} 1.234");
    assert_line(&INGEST, "steep_keyring_age_seconds{endpoint=\"ingest\"} 0.056");
    assert_line(&INGEST, "steep_keyring_entries{endpoint=\"ingest\",origin=\"environment\"} 1");
    assert_line(&INGEST, "steep_keyring_entries{endpoint=\"ingest\",origin=\"database\"} 20");
    assert_line(&INGEST, "process_start_time_seconds{endpoint=\"ingest\"} 1770129300");
    assert_line(
        &INGEST,
        "steep_build_info{endpoint=\"ingest\",program=\"ingest.fcgi\",version=\"" STEEP_VERSION
        "\"} 1");
    unread.state.keyring_age_ms = -1;
    unread.state.is_ready = false;
    assert_line(&unread, "steep_ready{endpoint=\"ingest\"} 0");
    assert_no(&unread, "keyring_age");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_is_added),
        cmocka_unit_test(counts_requests_by_status_and_code),
        cmocka_unit_test(merges_errors_that_look_the_same_to_a_client),
        cmocka_unit_test(counts_a_duration_up_to_and_including_the_bound),
        cmocka_unit_test(labels_each_bucket_with_its_bound),
        cmocka_unit_test(counts_refused_events_by_reason),
        cmocka_unit_test(writes_the_state),
    };
    int failed = cmocka_run_group_tests_name("exposition", tests, NULL, NULL);

    buffer_free(&out);
    return failed;
}
