#include "process/service.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "process/health.h"
#include "process/listener.h"
#include "process/notify.h"
#include "process/workers.h"

#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum {
    LARGE_BYTES = 1024 * 1024,
    GRACE_MS = 5000, /* a request ends with its deadline, or soon after */
    FIRST_READ_MS = 1000,
    FIRST_READ_STEP_MS = 10,
};

int64_t service_deadline(const struct worker *worker, const struct request *request)
{
    return request->arrived + worker->config->deadline_ms;
}

enum error service_expect_timely(const struct worker *worker, const struct request *request)
{
    return clock_left(service_deadline(worker, request)) > 0 ? ERROR_NONE : ERROR_UNAVAILABLE;
}

enum error service_error(enum database_verdict verdict)
{
    return verdict == DATABASE_DONE   ? ERROR_NONE
           : verdict == DATABASE_AWAY ? ERROR_UNAVAILABLE
                                      : ERROR_INTERNAL;
}

void service_count(const struct worker *worker, const struct request *request, enum error error)
{
    int64_t in_database = database_spent_us(worker->db);

    metrics_count_request(error);
    metrics_observe(METRICS_REQUEST, clock_us() - request->arrived_us);
    if (in_database >= 0)
        metrics_observe(METRICS_DATABASE, in_database);
}

void service_log_begin(struct log_line *line, const char *event, const struct worker *worker,
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
    if (*database_sqlstate(worker->db) != '\0')
        log_string(line, "sqlstate", database_sqlstate(worker->db));
}

void service_log_end(struct log_line *line, const struct request *request, bool is_heard)
{
    log_number(line, "ms", clock_ms() - request->arrived);
    if (!is_heard)
        log_string(line, "reply", "lost");
    log_end(line);
}

/* In the threads that are started from now on too: libfcgi's reads don't survive a signal. */
static void block_signals(void)
{
    static const int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
    sigset_t all;

    sigfillset(&all);
    for (size_t i = 0; i < sizeof(FAULTS) / sizeof(FAULTS[0]); i++)
        sigdelset(&all, FAULTS[i]);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

/* Waits so many milliseconds for a signal that ends the process, or for as long as it takes (0). */
static bool await_signal(int ms)
{
    struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    sigset_t stop;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    return (ms > 0 ? sigtimedwait(&stop, NULL, &limit) : sigwaitinfo(&stop, NULL)) > 0;
}

/*
 * Tells the watchdog that the workers progress; not while one of them has been
 * at a request for longer than any may take, however busy all the others are.
 */
static void feed_watchdog(const struct workers *workers, const struct config *config,
                          bool *is_reported)
{
    if (workers_longest_ms(workers) <= config->deadline_ms + GRACE_MS) {
        notify_send("WATCHDOG=1");
        *is_reported = false;
    } else if (!*is_reported) {
        log_event(LOG_ERROR, "stuck", "a request does not end; the watchdog is no longer fed");
        *is_reported = true;
    }
}

/*
 * Lets the workers finish what they have in hand. One whose peer fell silent in
 * mid-request never ends by itself; the process then ends without it.
 */
static void drain(struct workers *workers, const struct config *config, int watchdog_ms)
{
    int64_t until = clock_ms() + config->deadline_ms + GRACE_MS;
    bool is_reported = false;

    while (!workers_join(workers, watchdog_ms > 0 && watchdog_ms < clock_left(until)
                                      ? clock_ms() + watchdog_ms
                                      : until)) {
        if (clock_left(until) == 0) {
            log_event(LOG_ERROR, "stop", "a request did not end");
            _exit(EXIT_FAILURE);
        }
        feed_watchdog(workers, config, &is_reported);
    }
}

/* From the first request to the last one: says that it serves, awaits the signal, and drains. */
static void run(const struct service *service, const struct config *config, struct workers *workers,
                int stop_fd)
{
    int watchdog_ms = notify_watchdog_ms();
    bool is_reported = false;

    log_event(LOG_INFO, "serving", service->name);
    notify_send("READY=1");
    while (!await_signal(watchdog_ms)) {
        if (watchdog_ms > 0)
            feed_watchdog(workers, config, &is_reported);
    }
    notify_send("STOPPING=1");
    log_event(LOG_INFO, "stopping", service->name);
    eventfd_write(stop_fd, 1);
    drain(workers, config, watchdog_ms);
}

/*
 * Gives the first read of the keyring a moment: what waits in the listener's
 * queue since the last process ended would be answered 503 without it.
 */
static void await_keyring(struct keyring *keyring)
{
    int64_t until = clock_ms() + FIRST_READ_MS;

    while (!keyring_is_read(keyring) && clock_left(until) > 0)
        clock_sleep_jitter(FIRST_READ_STEP_MS);
}

/* Starts the threads and runs them; false, with a line in the log, where that can't be done. */
static bool run_threads(const struct service *service, const struct config *config,
                        struct keyring *keyring, const struct listeners *listeners, int stop_fd)
{
    struct refresh *refresh = refresh_start(service->plan, keyring, stop_fd);
    struct status_view view = {
        .service = service, .keyring = keyring, .refresh = refresh, .stop_fd = stop_fd};
    struct status *status = NULL;
    struct workers *workers = NULL;

    if (refresh == NULL) {
        log_event(LOG_ERROR, "start", "the keyring's thread can't be started");
        return false;
    }
    await_keyring(keyring);
    workers = workers_start(service, config, keyring, listeners->requests, stop_fd);
    view.workers = workers;
    if (workers != NULL && listeners->status >= 0) {
        status = status_start(&view, listeners->status);
        if (status == NULL)
            log_event(LOG_ERROR, "start", "the status thread can't be started");
    }
    if (workers != NULL)
        run(service, config, workers, stop_fd);
    status_stop(status);
    workers_free(workers);
    refresh_join(refresh);
    return workers != NULL;
}

static int serve(const struct service *service, const struct config *config,
                 struct keyring *keyring)
{
    struct listeners listeners;
    int stop_fd = -1;
    bool is_done = false;

    if (!listeners_take(&listeners))
        return EXIT_FAILURE;
    /* Before FCGX_Init, whose handlers would take a signal. */
    block_signals();
    if (FCGX_Init() == 0)
        stop_fd = eventfd(0, EFD_CLOEXEC);
    if (stop_fd < 0) {
        log_event(LOG_ERROR, "start", "libfcgi can't be set up");
        return EXIT_FAILURE;
    }
    is_done = run_threads(service, config, keyring, &listeners, stop_fd);
    close(stop_fd);
    return is_done ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Adds what the environment holds; false, with a line in the log, where it can't be taken. */
static bool read_credentials(const struct service *service, struct keyring *keyring)
{
    const char *value = getenv(service->variable);
    const char *problem = value != NULL ? service->add_credentials(keyring, value) : NULL;

    if (problem != NULL)
        config_refuse(service->variable, problem);
    return problem == NULL;
}

int service_main(const struct service *service, int argc, char **argv)
{
    struct config config;
    struct keyring *keyring;
    int status;
    enum config_action action;

    log_open();
    action = config_options(argc, argv, service->name, service->usage, &status);

    if (action == CONFIG_EXIT)
        return status;
    /*
     * What is larger goes back to the system as soon as it is freed, whatever
     * came before it; that much a worker keeps, so that the usual batch or month
     * of counts doesn't ask for its pages anew each time.
     */
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    mallopt(M_TRIM_THRESHOLD, LARGE_BYTES);
    keyring = keyring_new();
    if (sodium_init() < 0 || keyring == NULL) {
        log_event(LOG_ERROR, "start", "there is no memory or no randomness");
        keyring_free(keyring);
        return EXIT_FAILURE;
    }
    status = EX_CONFIG;
    if (config_read(&config, service->wait_seconds) && read_credentials(service, keyring))
        status = action == CONFIG_TEST ? EXIT_SUCCESS : serve(service, &config, keyring);
    keyring_free(keyring);
    return status;
}
