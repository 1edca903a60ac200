#include "http/request.h"

#include "base/clock.h"
#include "http/budget.h"

#include <fastcgi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum {
    NO_LISTENER = -1,
    MOST_WAITED_SECONDS = 3600,
    REST_MS = 100, /* for more of a body that is not looked at */
};

void request_init(struct request *request)
{
    memset(request, 0, sizeof(*request));
    FCGX_InitRequest(&request->fcgi, NO_LISTENER, 0);
}

struct request *request_new(void)
{
    struct request *request = malloc(sizeof(*request));

    if (request != NULL)
        request_init(request);
    return request;
}

void request_free(struct request *request)
{
    free(request);
}

/* FCGX_Accept_r uses the given connection if it believes that the last request kept it. */
bool request_accept(struct request *request, int fd)
{
    request->fcgi.ipcFd = fd;
    request->fcgi.keepConnection = 1;
    return FCGX_Accept_r(&request->fcgi) == 0;
}

/* Milliseconds since nginx passed the request on; 0 if unknown. */
static int64_t waited_ms(const struct request *request)
{
    const char *text = request_parameter(request, "REQUEST_MSEC");
    struct timespec now;
    char *point;
    long long seconds;
    int64_t waited;

    if (text == NULL)
        return 0;
    clock_gettime(CLOCK_REALTIME, &now);
    seconds = strtoll(text, &point, 10);
    if (*point != '.' || seconds > now.tv_sec || seconds < now.tv_sec - MOST_WAITED_SECONDS)
        return 0;
    waited = (now.tv_sec - seconds) * 1000 + now.tv_nsec / 1000000 - strtol(point + 1, NULL, 10);
    return waited > 0 ? waited : 0;
}

void request_begin(struct request *request)
{
    const char *id = request_parameter(request, "REQUEST_ID");

    request->arrived_us = clock_us() - waited_ms(request) * 1000;
    request->arrived_ms = request->arrived_us / 1000;
    snprintf(request->id, sizeof(request->id), "%s", id != NULL && *id != '\0' ? id : "-");
}

const char *request_parameter(const struct request *request, const char *name)
{
    return FCGX_GetParam(name, request->fcgi.envp);
}

enum error request_expect_method(const struct request *request, const char *method,
                                 const char *other)
{
    const char *given = request_parameter(request, "REQUEST_METHOD");

    if (given != NULL &&
        (strcmp(given, method) == 0 || (other != NULL && strcmp(given, other) == 0)))
        return ERROR_NONE;
    return ERROR_METHOD_NOT_ALLOWED;
}

bool request_is_head(const struct request *request)
{
    const char *method = request_parameter(request, "REQUEST_METHOD");

    return method != NULL && strcmp(method, "HEAD") == 0;
}

enum error request_body_length(const struct request *request, size_t most, size_t *length)
{
    const char *text = request_parameter(request, "CONTENT_LENGTH");

    *length = 0;
    if (text == NULL)
        return ERROR_NONE;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return ERROR_INVALID_REQUEST;
        *length = *length * 10 + (size_t)(*text - '0');
        if (*length > most)
            return ERROR_PAYLOAD_TOO_LARGE;
    }
    return ERROR_NONE;
}

/* How long a read waits for the peer; 0 for no limit. */
static void set_read_timeout(const struct request *request, int ms)
{
    const struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L};

    (void)setsockopt(request->fcgi.ipcFd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* Returns how much has arrived by the deadline. Reads what is there, or waits for one byte. */
static size_t read_until(struct request *request, size_t length, int64_t deadline)
{
    FCGX_Stream *in = request->fcgi.in;
    size_t done = 0;
    int got = 1;

    while (done < length && got > 0 && clock_left(deadline) > 0) {
        size_t there = (size_t)(in->stop - in->rdNext);
        size_t wanted = there == 0 ? 1 : there < length - done ? there : length - done;

        if (there == 0)
            set_read_timeout(request, clock_left(deadline));
        got = FCGX_GetStr(request->body + done, (int)wanted, in);
        done += got > 0 ? (size_t)got : 0;
    }
    set_read_timeout(request, 0);
    return done;
}

enum error request_read_body(struct request *request, size_t length, int64_t deadline)
{
    size_t got;

    if (!budget_take(length, deadline))
        return ERROR_UNAVAILABLE;
    request->body_share = length;
    request->body = malloc(length + 1);
    if (request->body == NULL)
        return ERROR_INTERNAL;
    if (length > BUDGET_SMALL_BYTES)
        got = read_until(request, length, deadline);
    else
        got = (size_t)FCGX_GetStr(request->body, (int)length, request->fcgi.in);
    if (got != length && clock_left(deadline) == 0)
        return ERROR_UNAVAILABLE;
    /* A client that left gives fewer bytes, but not always an error. */
    if (got != length || FCGX_GetError(request->fcgi.in) != 0)
        return ERROR_INVALID_REQUEST;
    request->body[length] = '\0';
    request->body_length = length;
    return ERROR_NONE;
}

void request_free_body(struct request *request)
{
    free(request->body);
    budget_give_back(request->body_share);
    request->body = NULL;
    request->body_length = 0;
    request->body_share = 0;
}

void request_break(struct request *request)
{
    FCGX_Free(&request->fcgi, 1);
}

void request_limit_writes(const struct request *request, int ms)
{
    const struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L};

    (void)setsockopt(request->fcgi.ipcFd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static FCGI_Header header(const struct request *request, unsigned char type, unsigned char length)
{
    unsigned int id = type == FCGI_GET_VALUES_RESULT ? FCGI_NULL_REQUEST_ID
                                                     : (unsigned int)request->fcgi.requestId;

    return (FCGI_Header){.version = FCGI_VERSION_1,
                         .type = type,
                         .requestIdB1 = (unsigned char)(id >> 8),
                         .requestIdB0 = (unsigned char)(id & 0xff),
                         .contentLengthB0 = length};
}

/*
 * Ends an answer so that nginx does not use the connection again. FastCGI has no word for
 * that, and when nginx sees the connection closed it may have begun to send a POST, which
 * it would not repeat. But nginx closes a connection on which anything follows the
 * FCGI_END_REQUEST (ngx_http_fastcgi_input_filter). So an empty record follows, in the
 * same write, as nginx must not see the one without the other.
 */
static void write_last_end(const struct request *request)
{
    const struct {
        FCGI_Header out;
        FCGI_EndRequestRecord end;
        FCGI_Header more;
    } records = {
        .out = header(request, FCGI_STDOUT, 0),
        .end.header = header(request, FCGI_END_REQUEST, sizeof(FCGI_EndRequestBody)),
        .more = header(request, FCGI_GET_VALUES_RESULT, 0),
    };

    (void)send(request->fcgi.ipcFd, &records, sizeof(records), MSG_NOSIGNAL);
}

void request_finish(struct request *request)
{
    if (request->fcgi.in != NULL && request->fcgi.keepConnection != 0) {
        if (FCGX_FFlush(request->fcgi.out) == 0)
            write_last_end(request);
        FCGX_Free(&request->fcgi, 1);
    } else {
        FCGX_Finish_r(&request->fcgi);
    }
}

/*
 * Reads the rest of the body. It may never arrive: once nginx has the head of the answer it
 * sends no more of a body, and waits for the end of the answer.
 */
bool request_can_be_kept(struct request *request)
{
    char rest[4096];

    if (request->fcgi.in == NULL || request->fcgi.keepConnection == 0)
        return false;
    set_read_timeout(request, REST_MS);
    while (FCGX_GetStr(rest, sizeof(rest), request->fcgi.in) == sizeof(rest))
        ;
    set_read_timeout(request, 0);
    return FCGX_GetError(request->fcgi.in) == 0;
}

int request_release(struct request *request)
{
    int fd;

    FCGX_Finish_r(&request->fcgi);
    fd = request->fcgi.ipcFd;
    request->fcgi.ipcFd = -1;
    return fd;
}
