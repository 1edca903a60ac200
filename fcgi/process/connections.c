#include "process/connections.h"

#include "base/clock.h"
#include "base/metrics.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ACCEPT_PAUSE_MS = 100,
    DRAIN_STEP_MS = 10,
    /* Twice the keepalive_timeout of nginx/snippets/upstream.conf. */
    DRAIN_MS = 2000,
};

struct connections {
    int listener;
    int epoll;  /* shared by all threads */
    int end_fd; /* readable when the threads are to end */
    atomic_int idle;
    atomic_bool is_draining;
    int64_t drain_until; /* clock_ms; 0 before */
    int put_back_fd;     /* a semaphore: readable while a request was put back */
    pthread_mutex_t lock;
    struct request *put_back; /* the first of them */
};

/* With EPOLLONESHOT, only one thread is woken, and has the descriptor to itself. */
static bool arm(const struct connections *connections, int operation, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = fd};

    return epoll_ctl(connections->epoll, operation, fd, &event) == 0;
}

struct connections *connections_new(int listener)
{
    struct connections *connections = calloc(1, sizeof(*connections));
    struct epoll_event end = {.events = EPOLLIN};
    struct epoll_event put_back = {.events = EPOLLIN};

    if (connections == NULL)
        return NULL;
    pthread_mutex_init(&connections->lock, NULL);
    connections->listener = listener;
    connections->epoll = epoll_create1(EPOLL_CLOEXEC);
    connections->end_fd = end.data.fd = eventfd(0, EFD_CLOEXEC);
    connections->put_back_fd = put_back.data.fd =
        eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    if (connections->epoll >= 0 && connections->end_fd >= 0 && connections->put_back_fd >= 0 &&
        epoll_ctl(connections->epoll, EPOLL_CTL_ADD, connections->end_fd, &end) == 0 &&
        epoll_ctl(connections->epoll, EPOLL_CTL_ADD, connections->put_back_fd, &put_back) == 0 &&
        arm(connections, EPOLL_CTL_ADD, listener))
        return connections;
    connections_free(connections);
    return NULL;
}

static bool is_readable(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    return poll(&readable, 1, 0) > 0;
}

/* Accepts a connection; -1 if there is none, or nothing has arrived on it yet. */
static int take_new(struct connections *connections)
{
    int fd = accept4(connections->listener, NULL, NULL, SOCK_CLOEXEC);

    /* EAGAIN: another process took it. Otherwise no descriptors are left: wait for some. */
    if (fd < 0 && errno != EAGAIN)
        clock_sleep_jitter(ACCEPT_PAUSE_MS);
    /* Fails when draining, as it should. */
    (void)arm(connections, EPOLL_CTL_MOD, connections->listener);
    if (fd < 0)
        return -1;
    metrics_add(METRIC_CONNECTIONS, 1);
    if (is_readable(fd) || !connections_reserve(connections))
        return fd;
    connections_keep(connections, fd);
    return -1;
}

/* Gives a connection that was kept to the caller alone. */
static void release(struct connections *connections, int fd)
{
    (void)epoll_ctl(connections->epoll, EPOLL_CTL_DEL, fd, NULL);
    atomic_fetch_sub(&connections->idle, 1);
}

int connections_await(struct connections *connections)
{
    for (;;) {
        struct epoll_event event;
        int fd;

        if (epoll_wait(connections->epoll, &event, 1, -1) != 1)
            continue;
        fd = event.data.fd;
        if (fd == connections->end_fd)
            return CONNECTIONS_END;
        if (fd == connections->put_back_fd)
            return CONNECTIONS_PUT_BACK;
        if (fd == connections->listener)
            fd = take_new(connections);
        else
            release(connections, fd);
        if (fd >= 0)
            return fd;
    }
}

/* Counts it first: connections_drain sets is_draining and then looks at the count. */
bool connections_reserve(struct connections *connections)
{
    int before = atomic_fetch_add(&connections->idle, 1);

    if (before < CONNECTIONS_MOST_IDLE && !atomic_load(&connections->is_draining))
        return true;
    atomic_fetch_sub(&connections->idle, 1);
    return false;
}

void connections_keep(struct connections *connections, int fd)
{
    if (fd >= 0 && arm(connections, EPOLL_CTL_ADD, fd))
        return;
    if (fd >= 0)
        close(fd);
    atomic_fetch_sub(&connections->idle, 1);
}

void connections_put_back(struct connections *connections, struct request *request)
{
    struct request **link = &connections->put_back;

    request->next = NULL;
    pthread_mutex_lock(&connections->lock);
    while (*link != NULL)
        link = &(*link)->next;
    *link = request;
    pthread_mutex_unlock(&connections->lock);
    eventfd_write(connections->put_back_fd, 1);
}

struct request *connections_take_back(struct connections *connections)
{
    struct request *request;
    eventfd_t one;

    (void)eventfd_read(connections->put_back_fd, &one);
    pthread_mutex_lock(&connections->lock);
    request = connections->put_back;
    if (request != NULL)
        connections->put_back = request->next;
    pthread_mutex_unlock(&connections->lock);
    return request;
}

bool connections_drain(struct connections *connections, int64_t until)
{
    if (connections->drain_until == 0) {
        connections->drain_until = clock_ms() + DRAIN_MS;
        (void)epoll_ctl(connections->epoll, EPOLL_CTL_DEL, connections->listener, NULL);
        atomic_store(&connections->is_draining, true);
    }
    while (atomic_load(&connections->idle) > 0 && clock_left(connections->drain_until) > 0) {
        if (clock_left(until) == 0)
            return false;
        clock_sleep_jitter(DRAIN_STEP_MS);
    }
    eventfd_write(connections->end_fd, 1);
    return true;
}

void connections_free(struct connections *connections)
{
    if (connections == NULL)
        return;
    if (connections->epoll >= 0)
        close(connections->epoll);
    if (connections->end_fd >= 0)
        close(connections->end_fd);
    if (connections->put_back_fd >= 0)
        close(connections->put_back_fd);
    pthread_mutex_destroy(&connections->lock);
    free(connections);
}
