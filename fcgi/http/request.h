/* What arrived: one FastCGI request, its parameters and its body. */
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
    int64_t arrived;               /* clock_ms; the wait for a worker counts */
    int64_t arrived_us;            /* clock_us of the same */
    char *body;                    /* NUL behind it; NULL until request_read_body */
    size_t body_length;
};

/*
 * Notes what every request has, once it was accepted: its id, and when nginx
 * had it whole (REQUEST_MSEC, its $msec). Where that can't be read or is no
 * time of the last hour, the request arrives now.
 */
void request_begin(struct request *request);

/* A parameter; NULL where nginx sent none. It dies with the request. */
const char *request_parameter(const struct request *request, const char *name);

/* ERROR_METHOD_NOT_ALLOWED unless the method is one of two; the second may be NULL. */
enum error request_expect_method(const struct request *request, const char *method,
                                 const char *other) MUST_CHECK;

/* Reads CONTENT_LENGTH. ERROR_PAYLOAD_TOO_LARGE above most, ERROR_INVALID_REQUEST for no number. */
enum error request_body_length(const struct request *request, size_t most,
                               size_t *length) MUST_CHECK;

/*
 * Reads the whole body of a length into memory that request_free_body frees.
 * ERROR_INVALID_REQUEST when it arrived incomplete, ERROR_INTERNAL when memory
 * is short.
 */
enum error request_read_body(struct request *request, size_t length) MUST_CHECK;
void request_free_body(struct request *request);

/*
 * Ends the exchange with nginx, so that the reply is on its way; the body
 * stays, the parameters don't. May be called again.
 */
void request_finish(struct request *request);

#endif
