#include "process/workers.h"

#include "base/clock.h"
#include "base/log.h"
#include "process/connections.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct thread {
    const struct workers_plan *plan;
    struct worker worker;
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

/* Answers the request in hand, which another worker may finish. */
static void answer(struct thread *thread)
{
    struct worker *worker = &thread->worker;

    record_begin(&worker->record, worker->request->id);
    thread->plan->answer(worker, worker->request);
    if (worker->request != NULL) {
        request_free_body(worker->request);
        worker_finish(worker, worker->request);
    } else {
        worker->request = worker->spare;
        worker->spare = NULL;
    }
    /* nginx has the answer by now. */
    worker_log_failure(worker);
}

/* Takes a request from a connection, unless nginx has closed it. */
static void take_request(struct thread *thread, int fd)
{
    if (!request_accept(thread->worker.request, fd))
        return;
    request_begin(thread->worker.request);
    answer(thread);
}

/* Answers a request that was put back; false if there is none. */
static bool take_back(struct thread *thread)
{
    struct worker *worker = &thread->worker;
    struct request *request = connections_take_back(worker->connections);

    if (request == NULL)
        return false;
    worker->spare = worker->request;
    worker->request = request;
    answer(thread);
    request_free(worker->spare);
    worker->spare = NULL;
    return true;
}

static void *work(void *arg)
{
    struct thread *thread = arg;
    struct worker *worker = &thread->worker;
    int fd;

    while ((fd = connections_await(worker->connections)) != CONNECTIONS_END) {
        /* Before it is read: a peer that falls silent midway holds the worker as well. */
        worker_note_progress(worker);
        if (fd == CONNECTIONS_PUT_BACK)
            (void)take_back(thread);
        else
            take_request(thread, fd);
        atomic_store_explicit(&worker->busy_since, 0, memory_order_relaxed);
    }
    do
        worker_note_progress(worker);
    while (take_back(thread));
    atomic_store_explicit(&worker->busy_since, 0, memory_order_relaxed);
    return NULL;
}

static bool start_thread(struct thread *thread, const struct workers *workers)
{
    struct worker *worker = &thread->worker;

    worker->event = thread->plan->event;
    worker->config = thread->plan->config;
    worker->keyring = thread->plan->keyring;
    worker->pool = workers->pool;
    worker->connections = workers->connections;
    worker->request = request_new();
    if (worker->request == NULL)
        return false;
    if (pthread_create(&thread->thread, NULL, work, thread) == 0)
        return true;
    request_free(worker->request);
    return false;
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
        if (!start_thread(thread, workers))
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
    return atomic_load_explicit(&workers->threads[number].worker.busy_since, memory_order_relaxed);
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
    for (int i = 0; i < workers->count; i++) {
        buffer_free(&workers->threads[i].worker.reply);
        request_free(workers->threads[i].worker.request);
    }
    pool_free(workers->pool);
    connections_free(workers->connections);
    free(workers);
}
