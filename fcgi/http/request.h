/* One FastCGI request: its parameters and its body. */
#ifndef STEEP_REQUEST_H
#define STEEP_REQUEST_H

#include "base/error.h"

#include <fcgiapp.h>
#include <stddef.h>
#include <stdint.h>

enum { REQUEST_ID_BYTES = 64 };

struct request {
    FCGX_Request fcgi;
    char id[REQUEST_ID_BYTES + 1]; /* nginx's $request_id, or "-" */
    int64_t arrived_ms;            /* clock_ms; includes the wait for a worker */
    int64_t arrived_us;            /* the same in clock_us */
    char *body;                    /* NUL-terminated; NULL until request_read_body */
    size_t body_length;
};

/*
 * Begins an accepted request: notes its id, and when nginx passed it on (REQUEST_MSEC,
 * nginx's $msec). If that is not a time of the last hour, the request arrived now.
 */
void request_begin(struct request *request);

/* A parameter; NULL if nginx sent none. It is valid until the request ends. */
const char *request_parameter(const struct request *request, const char *name);

/* ERROR_METHOD_NOT_ALLOWED unless the method is one of the two; the second may be NULL. */
enum error request_expect_method(const struct request *request, const char *method,
                                 const char *other) MUST_CHECK;

/* Reads CONTENT_LENGTH: ERROR_PAYLOAD_TOO_LARGE above most, ERROR_INVALID_REQUEST if not a number.
 */
enum error request_body_length(const struct request *request, size_t most,
                               size_t *length) MUST_CHECK;

/*
 * Reads the whole body into memory that request_free_body frees.
 * ERROR_INVALID_REQUEST if it arrived incomplete, ERROR_INTERNAL when memory is
 * short.
 */
enum error request_read_body(struct request *request, size_t length) MUST_CHECK;
void request_free_body(struct request *request);

/*
 * Ends the exchange with nginx, which sends the reply on its way. The body stays, the
 * parameters don't. May be called again.
 */
void request_finish(struct request *request);

#endif
