#include "process/health.h"

#include "base/clock.h"
#include "base/log.h"
#include "process/results.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { ACCEPT_PAUSE_MS = 100 };

/* Long enough: nginx sends such a request, which is short, in one piece. */
static const struct timeval IO_TIMEOUT = {.tv_sec = 1};

static const char ALLOW[] = "GET, HEAD";
static const char JSON[] = "application/json";
static const char METRICS[] = "text/plain; version=0.0.4; charset=utf-8";

struct health {
    struct health_view view;
    struct buffer reply;
    time_t started;
    int listener;
    int end_fd; /* not the view's stop_fd: this goes on while the workers finish */
    pthread_t thread;
};

static bool is_readable(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    return poll(&readable, 1, 0) > 0;
}

static enum error write_health(struct health *health)
{
    buffer_add_text(&health->reply, "{\"status\":\"ok\"}");
    return ERROR_NONE;
}

static bool is_ready(const struct health *health)
{
    return !is_readable(health->view.stop_fd) && refresh_is_current(health->view.refresh) &&
           !results_all_failed(clock_ms());
}

static enum error write_readiness(struct health *health)
{
    if (!is_ready(health))
        return ERROR_UNAVAILABLE;
    buffer_add_text(&health->reply, "{\"status\":\"ready\"}");
    return ERROR_NONE;
}

static enum error write_metrics(struct health *health)
{
    const struct health_view *view = &health->view;
    struct exposition_state state = {
        .is_ready = is_ready(health),
        .workers = workers_count(view->workers),
        .workers_busy = workers_busy(view->workers),
        .connections = workers_connections(view->workers),
        .longest_ms = workers_longest_ms(view->workers),
        .keyring_age_ms = refresh_age_ms(view->refresh),
        .started = (int64_t)health->started,
    };

    keyring_count(view->keyring, &state.keyring_environment, &state.keyring_database);
    exposition_write(&health->reply, view->program, &state);
    return ERROR_NONE;
}

static const struct route {
    const char *prefix;
    const char *type;
    enum error (*write)(struct health *health);
} ROUTES[] = {
    {"/healthz/", JSON, write_health},
    {"/readyz/", JSON, write_readiness},
    {"/metrics/", METRICS, write_metrics},
};

static const struct route *find_route(const char *path, const char *endpoint)
{
    for (size_t i = 0; path != NULL && i < sizeof(ROUTES) / sizeof(ROUTES[0]); i++) {
        size_t length = strlen(ROUTES[i].prefix);

        if (strncmp(path, ROUTES[i].prefix, length) == 0 && strcmp(path + length, endpoint) == 0)
            return &ROUTES[i];
    }
    return NULL;
}

static void answer(struct health *health, struct request *request)
{
    const struct route *route =
        find_route(request_parameter(request, "SCRIPT_NAME"), health->view.program->endpoint);
    enum error error = route != NULL ? ERROR_NONE : ERROR_NOT_FOUND;

    buffer_reset(&health->reply);
    if (error == ERROR_NONE)
        error = request_expect_method(request, "GET", "HEAD");
    if (error == ERROR_NONE)
        error = route->write(health);
    if (error != ERROR_NONE)
        reply_add_error(&health->reply, error);
    error = reply_settle(&health->reply, error);
    (void)reply_send_as(request, error, ALLOW, error == ERROR_NONE ? route->type : JSON,
                        &health->reply);
}

/*
 * Accepts a connection whose peer can't hold the thread for long: libfcgi has no
 * time-outs of its own.
 */
static bool accept_request(const struct health *health, struct request *request)
{
    int fd = accept4(health->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        /* No descriptors are left, or the peer has gone. */
        if (errno != EAGAIN)
            clock_sleep_jitter(ACCEPT_PAUSE_MS);
        return false;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &IO_TIMEOUT, sizeof(IO_TIMEOUT)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &IO_TIMEOUT, sizeof(IO_TIMEOUT)) != 0) {
        close(fd);
        return false;
    }
    return request_accept(request, fd);
}

static void *run(void *arg)
{
    struct health *health = arg;
    struct request request;
    struct pollfd fds[2] = {{.fd = health->end_fd, .events = POLLIN},
                            {.fd = health->listener, .events = POLLIN}};

    request_init(&request);
    while (poll(fds, 2, -1) >= 0 && fds[0].revents == 0) {
        if (accept_request(health, &request)) {
            answer(health, &request);
            request_finish(&request);
        }
    }
    return NULL;
}

struct health *health_start(const struct health_view *view, int listener)
{
    struct health *health = calloc(1, sizeof(*health));

    if (health == NULL)
        return NULL;
    health->view = *view;
    health->listener = listener;
    health->started = time(NULL);
    health->end_fd = eventfd(0, EFD_CLOEXEC);
    if (health->end_fd >= 0 && pthread_create(&health->thread, NULL, run, health) == 0)
        return health;
    if (health->end_fd >= 0)
        close(health->end_fd);
    free(health);
    return NULL;
}

void health_stop(struct health *health)
{
    if (health == NULL)
        return;
    eventfd_write(health->end_fd, 1);
    pthread_join(health->thread, NULL);
    close(health->end_fd);
    buffer_free(&health->reply);
    free(health);
}
