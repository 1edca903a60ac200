#include "process/health.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

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

enum {
    ACCEPT_PAUSE_MS = 100,
    NO_LISTENER = -1,
};

/* nginx sends its question, which is short, in one piece. */
static const struct timeval PATIENCE = {.tv_sec = 1};

static const char ALLOW[] = "GET, HEAD";
static const char JSON[] = "application/json";
static const char METRICS[] = "text/plain; version=0.0.4; charset=utf-8";

struct status {
    struct status_view view;
    struct reply_text reply;
    time_t started;
    int listener;
    int end_fd; /* not the view's stop_fd: while requests are being finished, this goes on */
    pthread_t thread;
};

static bool is_readable(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    return poll(&readable, 1, 0) > 0;
}

static enum error tell_health(struct status *status)
{
    reply_add_text(&status->reply, "{\"status\":\"ok\"}");
    return ERROR_NONE;
}

static bool is_ready(const struct status *status)
{
    return !is_readable(status->view.stop_fd) && refresh_is_current(status->view.refresh);
}

static enum error tell_readiness(struct status *status)
{
    if (!is_ready(status))
        return ERROR_UNAVAILABLE;
    reply_add_text(&status->reply, "{\"status\":\"ready\"}");
    return ERROR_NONE;
}

static enum error tell_metrics(struct status *status)
{
    const struct status_view *view = &status->view;
    struct metrics_state state = {
        .program = view->service->name,
        .endpoint = view->service->endpoint,
        .takes_batches = view->service->takes_batches,
        .errors = view->service->errors,
        .is_ready = is_ready(status),
        .workers = workers_count(view->workers),
        .workers_busy = workers_busy(view->workers),
        .longest_ms = workers_longest_ms(view->workers),
        .keyring_age_ms = refresh_age_ms(view->refresh),
        .started = (int64_t)status->started,
    };

    keyring_count(view->keyring, &state.keyring_fixed, &state.keyring_read);
    metrics_write(&status->reply, &state);
    return ERROR_NONE;
}

static const struct route {
    const char *prefix;
    const char *type;
    enum error (*tell)(struct status *status);
} ROUTES[] = {
    {"/healthz/", JSON, tell_health},
    {"/readyz/", JSON, tell_readiness},
    {"/metrics/", METRICS, tell_metrics},
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

static void answer(struct status *status, struct request *request)
{
    const struct route *route =
        find_route(request_parameter(request, "SCRIPT_NAME"), status->view.service->endpoint);
    enum error error = route != NULL ? ERROR_NONE : ERROR_NOT_FOUND;

    reply_reset(&status->reply);
    if (error == ERROR_NONE)
        error = request_expect_method(request, "GET", "HEAD");
    if (error == ERROR_NONE)
        error = route->tell(status);
    if (error != ERROR_NONE)
        reply_add_error(&status->reply, error);
    error = reply_settle(&status->reply, error);
    (void)reply_send_as(request, error, ALLOW, error == ERROR_NONE ? route->type : JSON,
                        &status->reply);
}

/*
 * Accepts a connection whose peer can't keep the thread for long: libfcgi has no
 * time-outs of its own. It accepts nothing itself as long as it believes that the
 * last request left it a connection.
 */
static bool accept_request(const struct status *status, struct request *request)
{
    int fd = accept4(status->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        /* No descriptors are left, and that takes a while; or the peer has gone. */
        if (errno != EAGAIN)
            clock_sleep_jitter(ACCEPT_PAUSE_MS);
        return false;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof(PATIENCE)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &PATIENCE, sizeof(PATIENCE)) != 0) {
        close(fd);
        return false;
    }
    request->fcgi.ipcFd = fd;
    request->fcgi.keepConnection = 1;
    if (FCGX_Accept_r(&request->fcgi) != 0)
        return false;
    request->fcgi.keepConnection = 0;
    return true;
}

static void *run(void *arg)
{
    struct status *status = arg;
    struct request request = {0};
    struct pollfd fds[2] = {{.fd = status->end_fd, .events = POLLIN},
                            {.fd = status->listener, .events = POLLIN}};

    FCGX_InitRequest(&request.fcgi, NO_LISTENER, 0);
    while (poll(fds, 2, -1) >= 0 && fds[0].revents == 0) {
        if (accept_request(status, &request)) {
            answer(status, &request);
            request_finish(&request);
        }
    }
    FCGX_Free(&request.fcgi, 1);
    return NULL;
}

struct status *status_start(const struct status_view *view, int listener)
{
    struct status *status = calloc(1, sizeof(*status));

    if (status == NULL)
        return NULL;
    status->view = *view;
    status->listener = listener;
    status->started = time(NULL);
    status->end_fd = eventfd(0, EFD_CLOEXEC);
    if (status->end_fd >= 0 && pthread_create(&status->thread, NULL, run, status) == 0)
        return status;
    if (status->end_fd >= 0)
        close(status->end_fd);
    free(status);
    return NULL;
}

void status_stop(struct status *status)
{
    if (status == NULL)
        return;
    eventfd_write(status->end_fd, 1);
    pthread_join(status->thread, NULL);
    close(status->end_fd);
    reply_free(&status->reply);
    free(status);
}
