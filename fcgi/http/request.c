#include "http/request.h"

#include "base/clock.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_WAITED_SECONDS = 3600 };

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

enum error request_read_body(struct request *request, size_t length)
{
    int got;

    if (length >= INT_MAX || (request->body = malloc(length + 1)) == NULL)
        return ERROR_INTERNAL;
    got = FCGX_GetStr(request->body, (int)length, request->fcgi.in);
    /* A client that left gives fewer bytes, but not always an error. */
    if (got < 0 || (size_t)got != length || FCGX_GetError(request->fcgi.in) != 0)
        return ERROR_INVALID_REQUEST;
    request->body[length] = '\0';
    request->body_length = length;
    return ERROR_NONE;
}

void request_free_body(struct request *request)
{
    free(request->body);
    request->body = NULL;
    request->body_length = 0;
}

void request_finish(struct request *request)
{
    FCGX_Finish_r(&request->fcgi);
}
