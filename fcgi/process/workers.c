#include "process/workers.h"

#include "base/clock.h"
#include "base/log.h"
#include "process/connections.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LOG_FAILURE_MS = 2000 };

struct thread {
    const struct workers_plan *plan;
    struct connections *connections; /* shared by all */
    struct worker worker;
    atomic_llong busy_since; /* clock_ms of the request in hand; 0 for none */
    pthread_t thread;
};

struct workers {
    struct workers_plan plan;
    struct pool *pool;
    struct connections *connections;
    int count;
    int joined; /* threads joined so far, from the first on */
    struct thread threads[];
};

/*
 * Ends the exchange with nginx. A connection that nginx keeps waits for the next request
 * without this worker, which still has something to do for the last one.
 */
static void finish_request(struct thread *thread, struct request *request)
{
    if (request_can_be_kept(request) && connections_reserve(thread->connections))
        connections_keep(thread->connections, request_release(request));
    else
        request_finish(request);
}

/* Answers one request, unless nginx has closed the connection. */
static void take_request(struct thread *thread, struct request *request, int fd)
{
    if (!request_accept(request, fd))
        return;
    request_begin(request);
    record_begin(&thread->worker.record, request->id);
    thread->plan->answer(&thread->worker, request);
    request_free_body(request);
    finish_request(thread, request);
    /* nginx has the answer by now. */
    worker_log_failure(&thread->worker, clock_ms() + LOG_FAILURE_MS);
}

static void *work(void *arg)
{
    struct thread *thread = arg;
    struct request request;
    int fd;

    request_init(&request);
    while ((fd = connections_await(thread->connections)) != CONNECTIONS_END) {
        /* Before it is read: a peer that falls silent midway holds the worker as well. */
        atomic_store_explicit(&thread->busy_since, clock_ms(), memory_order_relaxed);
        take_request(thread, &request, fd);
        atomic_store_explicit(&thread->busy_since, 0, memory_order_relaxed);
    }
    return NULL;
}

static bool start_thread(struct thread *thread, struct pool *pool)
{
    struct worker *worker = &thread->worker;

    worker->event = thread->plan->event;
    worker->config = thread->plan->config;
    worker->keyring = thread->plan->keyring;
    worker->pool = pool;
    return pthread_create(&thread->thread, NULL, work, thread) == 0;
}

struct workers *workers_start(const struct workers_plan *plan)
{
    int wanted = plan->config->workers;
    struct workers *workers =
        calloc(1, sizeof(*workers) + (size_t)wanted * sizeof(workers->threads[0]));

    if (workers != NULL) {
        workers->plan = *plan;
        workers->pool =
            pool_new(plan->name, plan->config->connections, wanted, plan->config->wait_ms);
        workers->connections = connections_new(plan->listener);
    }
    while (workers != NULL && workers->pool != NULL && workers->connections != NULL &&
           workers->count < wanted) {
        struct thread *thread = &workers->threads[workers->count];

        thread->plan = &workers->plan;
        thread->connections = workers->connections;
        if (!start_thread(thread, workers->pool))
            break;
        workers->count++;
    }
    if (workers != NULL && workers->count == wanted)
        return workers;
    log_event(LOG_ERROR, "start", "can't start the worker threads");
    eventfd_write(plan->stop_fd, 1);
    if (workers != NULL && workers->count > 0 &&
        !workers_join(workers, clock_ms() + plan->config->deadline_ms))
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

int workers_connections(const struct workers *workers)
{
    return workers->plan.config->connections;
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

bool workers_join(struct workers *workers, int64_t until)
{
    if (!connections_drain(workers->connections, until))
        return false;
    while (workers->joined < workers->count) {
        if (!clock_join(workers->threads[workers->joined].thread, until))
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
        buffer_free(&workers->threads[i].worker.reply);
    pool_free(workers->pool);
    connections_free(workers->connections);
    free(workers);
}
