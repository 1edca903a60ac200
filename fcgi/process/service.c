#include "process/service.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "db/hosts.h"
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
    KEPT_BYTES = 4 * 1024 * 1024,
    GRACE_MS = 5000,      /* a request ends with its deadline, or soon after */
    FIRST_READ_MS = 4000, /* a million keys take two seconds */
    FAILED_READ_MS = 1000,
    FIRST_READ_STEP_MS = 10,
    TICK_MS = 1000, /* between looks for requests without a line in the log */
};

/* Blocks them for threads started later as well: a signal would cut short a read of libfcgi. */
static void block_signals(void)
{
    static const int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
    sigset_t all;

    sigfillset(&all);
    for (size_t i = 0; i < sizeof(FAULTS) / sizeof(FAULTS[0]); i++)
        sigdelset(&all, FAULTS[i]);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

/* Waits up to ms milliseconds for a signal that ends the process. */
static bool await_signal(int ms)
{
    struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    sigset_t stop;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    return sigtimedwait(&stop, NULL, &limit) > 0;
}

/*
 * Tells the watchdog that the workers make progress; not while one of them holds
 * a request for longer than any may take, however busy the others are.
 */
static void feed_watchdog(const struct workers *workers, const struct config *config,
                          bool *is_reported)
{
    if (workers_longest_ms(workers) <= config->deadline_ms + GRACE_MS) {
        notify_send("WATCHDOG=1");
        *is_reported = false;
    } else if (!*is_reported) {
        log_event(LOG_ERROR, "stuck", "a request is stuck; withholding the watchdog notifications");
        *is_reported = true;
    }
}

/*
 * Lets the workers finish the requests in hand. A request whose peer fell silent
 * midway never ends; the process then ends without it.
 */
static void drain(struct workers *workers, const struct config *config, int watchdog_ms)
{
    int64_t until = clock_ms() + config->deadline_ms + GRACE_MS;
    bool is_reported = false;

    while (!workers_join(workers, watchdog_ms > 0 && watchdog_ms < clock_left(until)
                                      ? clock_ms() + watchdog_ms
                                      : until)) {
        if (clock_left(until) == 0) {
            log_event(LOG_ERROR, "stop", "a request did not finish in time; exiting without it");
            _exit(EXIT_FAILURE);
        }
        feed_watchdog(workers, config, &is_reported);
    }
}

/* Serves: notifies the service manager, waits for the signal, and drains. */
static void run(const struct service *service, const struct config *config, struct workers *workers,
                int stop_fd)
{
    int watchdog_ms = notify_watchdog_ms();
    bool is_reported = false;

    log_event(LOG_INFO, "serving", service->program.name);
    notify_send("READY=1");
    while (!await_signal(watchdog_ms > 0 && watchdog_ms < TICK_MS ? watchdog_ms : TICK_MS)) {
        if (watchdog_ms > 0)
            feed_watchdog(workers, config, &is_reported);
        worker_log_left_out(service->program.endpoint, false);
    }
    notify_send("STOPPING=1");
    log_event(LOG_INFO, "stopping", service->program.name);
    eventfd_write(stop_fd, 1);
    drain(workers, config, watchdog_ms);
    worker_log_left_out(service->program.endpoint, true);
}

/*
 * Gives the first read of the keyring a moment, and less if it fails. Without it, requests that
 * waited in the listener's queue since the last process ended would be answered 503.
 */
static void await_keyring(struct keyring *keyring, const struct refresh *refresh)
{
    int64_t began = clock_ms();

    while (!keyring_has_snapshot(keyring) &&
           clock_left(began + (refresh_is_failing(refresh) ? FAILED_READ_MS : FIRST_READ_MS)) > 0)
        clock_sleep_jitter(FIRST_READ_STEP_MS);
}

/* Starts the threads and serves; false, after a line in the log, if they can't be started. */
static bool run_threads(const struct service *service, const struct config *config,
                        struct keyring *keyring, const struct listeners *listeners, int stop_fd)
{
    struct refresh *refresh = refresh_start(service->plan, keyring, stop_fd);
    struct probe *probe = probe_start(&service->probe, stop_fd);
    struct health_view view = {
        .program = &service->program, .keyring = keyring, .refresh = refresh, .stop_fd = stop_fd};
    const struct workers_plan plan = {
        .name = service->program.name,
        .event = service->program.endpoint,
        .config = config,
        .keyring = keyring,
        .answer = service->answer,
        .listener = listeners->requests,
        .stop_fd = stop_fd,
    };
    struct health *health = NULL;
    struct workers *workers = NULL;

    if (refresh == NULL || probe == NULL) {
        log_event(LOG_ERROR, "start", "can't start the keyring thread or the probe");
        eventfd_write(stop_fd, 1);
        probe_join(probe);
        refresh_join(refresh);
        return false;
    }
    await_keyring(keyring, refresh);
    workers = workers_start(&plan);
    view.workers = workers;
    if (workers != NULL && listeners->health >= 0) {
        health = health_start(&view, listeners->health);
        if (health == NULL)
            log_event(LOG_ERROR, "start", "can't start the health thread");
    }
    if (workers != NULL)
        run(service, config, workers, stop_fd);
    health_stop(health);
    workers_free(workers);
    probe_join(probe);
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
        log_event(LOG_ERROR, "start", "can't set up libfcgi");
        return EXIT_FAILURE;
    }
    is_done = run_threads(service, config, keyring, &listeners, stop_fd);
    close(stop_fd);
    return is_done ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Adds the environment's credentials; false, after a line in the log, if they are invalid. */
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
    action = config_options(argc, argv, service->program.name, service->usage, &status);

    if (action == CONFIG_EXIT)
        return status;
    /*
     * Large blocks go back to the system as soon as they are freed. Of the others so much is
     * kept that a usual batch or month of counts (1.3 MB for ten sources) does not fault in
     * new pages each time; in one arena, so that any worker can use what another has freed.
     */
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    keyring = keyring_new();
    if (sodium_init() < 0 || keyring == NULL) {
        log_event(LOG_ERROR, "start", "out of memory, or no source of randomness");
        keyring_free(keyring);
        return EXIT_FAILURE;
    }
    status = EX_CONFIG;
    if (config_read(&config, service->wait_seconds) && read_credentials(service, keyring)) {
        hosts_limit_age(config.staleness_ms);
        status = action == CONFIG_TEST ? EXIT_SUCCESS : serve(service, &config, keyring);
    }
    keyring_free(keyring);
    return status;
}
