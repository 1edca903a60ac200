#include "service.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_PASSED_FD = 3,
    LARGE_BYTES = 1024 * 1024,
    LOOK_MS = 500,
    ACCEPT_PAUSE_MS = 100,
    STOP_GRACE_MS = 5000,
    FIRST_READ_MS = 1000,
    FIRST_READ_STEP_MS = 10,
};

/* What a thread needs besides its worker's things. */
struct thread {
    const struct service *service;
    struct worker worker;
    int listener;
    int events; /* an epoll instance: a connection, or the time to stop */
    int stop_fd;
    pthread_t thread;
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

void service_log_begin(struct log_line *line, const char *event, const struct worker *worker,
                       const struct request *request, enum error error)
{
    log_begin(line, error == ERROR_INTERNAL ? LOG_ERROR : LOG_INFO, event);
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

static bool is_listener(int fd)
{
    int listens = 0;
    socklen_t size = sizeof(listens);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

/*
 * Finds the listener and sets libfcgi up; blocks signals in the threads that
 * are started from now on. Returns -1, with a line in the log, where there is none.
 */
static int take_listener(void)
{
    const char *fds = getenv("LISTEN_FDS");
    const char *pid = getenv("LISTEN_PID");
    static const int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
    int listener = STDIN_FILENO;
    sigset_t all;

    if (fds != NULL && pid != NULL && strtol(pid, NULL, 10) == (long)getpid()) {
        if (strcmp(fds, "1") != 0) {
            log_event(LOG_ERROR, "listener", "LISTEN_FDS must hand over one socket");
            return -1;
        }
        listener = FIRST_PASSED_FD;
    }
    if (!is_listener(listener)) {
        log_event(
            LOG_ERROR, "listener",
            "no listening socket was handed over, neither by LISTEN_FDS nor as standard input");
        return -1;
    }
    /* libfcgi's reads don't survive a signal. Before FCGX_Init, whose handlers would take one. */
    sigfillset(&all);
    for (size_t i = 0; i < sizeof(FAULTS) / sizeof(FAULTS[0]); i++)
        sigdelset(&all, FAULTS[i]);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    /* Workers may race for a connection; those that lose must come back, not wait in accept. */
    if (fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK) != 0 || FCGX_Init() != 0) {
        log_event(LOG_ERROR, "listener", "the listening socket can't be set up");
        return -1;
    }
    return listener;
}

/*
 * Makes what a worker waits on; -1 where that can't be had. A connection wakes
 * one of the idle workers and not all of them, and always the first: where few
 * are busy, the same few sessions of PostgreSQL keep their caches warm.
 */
static int watch(int listener, int stop_fd)
{
    struct epoll_event connection = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener};
    struct epoll_event stop = {.events = EPOLLIN, .data.fd = stop_fd};
    int events = epoll_create1(EPOLL_CLOEXEC);

    if (events >= 0 && epoll_ctl(events, EPOLL_CTL_ADD, listener, &connection) == 0 &&
        epoll_ctl(events, EPOLL_CTL_ADD, stop_fd, &stop) == 0)
        return events;
    if (events >= 0)
        close(events);
    return -1;
}

/* Waits for a connection; false when it is time to stop. */
static bool await_request(const struct thread *thread)
{
    struct epoll_event events[2];
    int count = epoll_wait(thread->events, events, 2, -1);

    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == thread->stop_fd)
            return false;
    }
    return true;
}

static void *work(void *arg)
{
    struct thread *thread = arg;
    struct request request = {0};

    FCGX_InitRequest(&request.fcgi, thread->listener, FCGI_FAIL_ACCEPT_ON_INTR);
    while (await_request(thread)) {
        int status = FCGX_Accept_r(&request.fcgi);

        if (status != 0) {
            /* Another worker was faster; or no descriptors are left, and that takes a while. */
            if (status != -EAGAIN)
                clock_sleep_jitter(ACCEPT_PAUSE_MS);
            continue;
        }
        /* A connection that nginx kept for its next request would hold this worker. */
        request.fcgi.keepConnection = 0;
        request_begin(&request);
        thread->service->answer(&thread->worker, &request);
        request_free_body(&request);
        request_finish(&request);
        database_clear(thread->worker.db);
    }
    FCGX_Free(&request.fcgi, 1);
    return NULL;
}

static void close_thread(struct thread *thread)
{
    database_free(thread->worker.db);
    reply_free(&thread->worker.reply);
    free(thread->worker.scratch);
    if (thread->events >= 0)
        close(thread->events);
}

static bool start_thread(struct thread *thread, struct connection_patience *patience)
{
    struct worker *worker = &thread->worker;

    worker->db = database_new(thread->service->name, patience);
    worker->scratch = malloc(thread->service->scratch_bytes + 1); /* never 0, which may give NULL */
    thread->events = watch(thread->listener, thread->stop_fd);
    if (worker->db != NULL && worker->scratch != NULL && thread->events >= 0 &&
        pthread_create(&thread->thread, NULL, work, thread) == 0)
        return true;
    close_thread(thread);
    return false;
}

static void await_signal(void)
{
    sigset_t stop;
    int number;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigwait(&stop, &number);
}

/*
 * Waits for a worker until a moment of clock_ms. One whose peer fell silent in
 * mid-request never ends by itself; the process then ends without it.
 */
static void join_thread(struct thread *thread, int64_t until)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += clock_left(until) / 1000 + 1;
    if (pthread_timedjoin_np(thread->thread, NULL, &limit) != 0) {
        log_event(LOG_ERROR, "stop", "a request did not end");
        _exit(EXIT_FAILURE);
    }
}

/* Runs the workers until a signal, then lets them finish. False where they could not be started. */
static bool run_workers(const struct service *service, const struct config *config,
                        struct keyring *keyring, int listener, int stop_fd)
{
    struct connection_patience patience = {
        .look_ms = LOOK_MS,
        .wait_ms = config->wait_ms,
        .most_waiting = config->workers > 1 ? config->workers / 2 : 1,
    };
    struct thread *threads = calloc((size_t)config->workers, sizeof(*threads));
    int64_t stop_until;
    int started = 0;

    for (; threads != NULL && started < config->workers; started++) {
        struct thread *thread = &threads[started];

        thread->service = service;
        thread->worker.config = config;
        thread->worker.keyring = keyring;
        thread->listener = listener;
        thread->stop_fd = stop_fd;
        if (!start_thread(thread, &patience))
            break;
    }
    if (started == config->workers) {
        log_event(LOG_INFO, "serving", service->name);
        await_signal();
        log_event(LOG_INFO, "stopping", service->name);
    } else {
        log_event(LOG_ERROR, "start", "the worker threads can't be started");
    }
    eventfd_write(stop_fd, 1);
    stop_until = clock_ms() + config->deadline_ms + STOP_GRACE_MS;
    for (int i = 0; i < started; i++) {
        join_thread(&threads[i], stop_until);
        close_thread(&threads[i]);
    }
    free(threads);
    return started == config->workers;
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

static int serve(const struct service *service, const struct config *config,
                 struct keyring *keyring)
{
    int listener = take_listener();
    int stop_fd = eventfd(0, EFD_CLOEXEC);
    struct refresh *refresh = NULL;
    bool is_done = false;

    if (listener >= 0 && stop_fd >= 0)
        refresh = refresh_start(service->plan, keyring, stop_fd);
    if (refresh != NULL) {
        await_keyring(keyring);
        is_done = run_workers(service, config, keyring, listener, stop_fd);
    } else if (listener >= 0) {
        log_event(LOG_ERROR, "start", "the keyring's thread can't be started");
    }
    refresh_join(refresh);
    if (stop_fd >= 0)
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
    enum config_action action = config_options(argc, argv, service->name, service->usage, &status);

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
    status = EXIT_FAILURE;
    if (config_read(&config, service->wait_seconds) && read_credentials(service, keyring))
        status = action == CONFIG_TEST ? EXIT_SUCCESS : serve(service, &config, keyring);
    keyring_free(keyring);
    return status;
}
