#include "process/workers.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_CONNECT_MS = 500,
    ACCEPT_PAUSE_MS = 100,
    LOG_FAILURE_MS = 2000,
};

struct thread {
    const struct workers_plan *plan;
    struct worker worker;
    int events;              /* an epoll instance: a connection, or the signal to stop */
    atomic_llong busy_since; /* clock_ms of the request in hand; 0 for none */
    pthread_t thread;
};

struct workers {
    struct workers_plan plan;
    struct connection_limits limits;
    int count;
    int joined; /* threads joined so far, from the first on */
    struct thread threads[];
};

/*
 * Makes the epoll instance of a worker; -1 on failure. A connection wakes one of the
 * idle workers and not all of them, and always the first: as long as few are busy,
 * the same few sessions of PostgreSQL keep their caches warm.
 */
static int open_events(int listener, int stop_fd)
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
        if (events[i].data.fd == thread->plan->stop_fd)
            return false;
    }
    return true;
}

/* Answers one request, unless another worker was faster. */
static void take_request(struct thread *thread, struct request *request)
{
    int status = FCGX_Accept_r(&request->fcgi);

    if (status != 0) {
        /* -EAGAIN: another worker took it. Otherwise no descriptors are left: wait for some. */
        if (status != -EAGAIN)
            clock_sleep_jitter(ACCEPT_PAUSE_MS);
        return;
    }
    /* A connection kept open by nginx for its next request would hold this worker. */
    request->fcgi.keepConnection = 0;
    request_begin(request);
    database_record_begin(&thread->worker.record, request->id);
    thread->plan->answer(&thread->worker, request);
    request_free_body(request);
    request_finish(request);
    /* nginx has the answer by now. */
    database_log_failure(thread->worker.db, &thread->worker.record, clock_ms() + LOG_FAILURE_MS);
    database_clear(thread->worker.db);
}

static void *work(void *arg)
{
    struct thread *thread = arg;
    struct request request = {0};

    FCGX_InitRequest(&request.fcgi, thread->plan->listener, FCGI_FAIL_ACCEPT_ON_INTR);
    while (await_request(thread)) {
        /* Before it is accepted: a peer that then stays silent holds the worker as well. */
        atomic_store_explicit(&thread->busy_since, clock_ms(), memory_order_relaxed);
        take_request(thread, &request);
        atomic_store_explicit(&thread->busy_since, 0, memory_order_relaxed);
    }
    FCGX_Free(&request.fcgi, 1);
    return NULL;
}

static void close_thread(struct thread *thread)
{
    database_free(thread->worker.db);
    buffer_free(&thread->worker.reply);
    free(thread->worker.scratch);
    if (thread->events >= 0)
        close(thread->events);
}

static bool start_thread(struct thread *thread, struct connection_limits *limits)
{
    struct worker *worker = &thread->worker;

    worker->event = thread->plan->event;
    worker->config = thread->plan->config;
    worker->keyring = thread->plan->keyring;
    worker->db = database_new(thread->plan->name, limits);
    worker->scratch = malloc(thread->plan->scratch_bytes + 1); /* never 0, which may give NULL */
    thread->events = open_events(thread->plan->listener, thread->plan->stop_fd);
    if (worker->db != NULL && worker->scratch != NULL && thread->events >= 0 &&
        pthread_create(&thread->thread, NULL, work, thread) == 0)
        return true;
    close_thread(thread);
    return false;
}

struct workers *workers_start(const struct workers_plan *plan)
{
    int wanted = plan->config->workers;
    struct workers *workers =
        calloc(1, sizeof(*workers) + (size_t)wanted * sizeof(workers->threads[0]));

    if (workers != NULL) {
        workers->plan = *plan;
        workers->limits.first_connect_ms = FIRST_CONNECT_MS;
        workers->limits.wait_ms = plan->config->wait_ms;
        workers->limits.most_waiting = wanted > 1 ? wanted / 2 : 1;
    }
    while (workers != NULL && workers->count < wanted) {
        struct thread *thread = &workers->threads[workers->count];

        thread->plan = &workers->plan;
        if (!start_thread(thread, &workers->limits))
            break;
        workers->count++;
    }
    if (workers != NULL && workers->count == wanted)
        return workers;
    log_event(LOG_ERROR, "start", "can't start the worker threads");
    eventfd_write(plan->stop_fd, 1);
    if (workers != NULL && !workers_join(workers, clock_ms() + plan->config->deadline_ms))
        _exit(EXIT_FAILURE);
    workers_free(workers);
    return NULL;
}

int workers_count(const struct workers *workers)
{
    return workers->count;
}

static int64_t busy_since(const struct workers *workers, int number)
{
    return atomic_load_explicit(&workers->threads[number].busy_since, memory_order_relaxed);
}

int workers_busy(const struct workers *workers)
{
    int busy = 0;

    for (int i = 0; i < workers->count; i++)
        busy += busy_since(workers, i) != 0;
    return busy;
}

int64_t workers_longest_ms(const struct workers *workers)
{
    int64_t now = clock_ms();
    int64_t longest = 0;

    for (int i = 0; i < workers->count; i++) {
        int64_t since = busy_since(workers, i);

        if (since != 0 && now - since > longest)
            longest = now - since;
    }
    return longest;
}

/* By the real-time clock: gcc 12's ThreadSanitizer does not know pthread_clockjoin_np. */
bool workers_join(struct workers *workers, int64_t until)
{
    struct timespec limit;
    int left = clock_left(until);

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += left / 1000;
    limit.tv_nsec += left % 1000 * 1000000L;
    if (limit.tv_nsec >= 1000000000L) {
        limit.tv_sec++;
        limit.tv_nsec -= 1000000000L;
    }
    while (workers->joined < workers->count) {
        if (pthread_timedjoin_np(workers->threads[workers->joined].thread, NULL, &limit) != 0)
            return false;
        workers->joined++;
    }
    return true;
}

void workers_free(struct workers *workers)
{
    if (workers == NULL)
        return;
    for (int i = 0; i < workers->count; i++)
        close_thread(&workers->threads[i]);
    free(workers);
}
