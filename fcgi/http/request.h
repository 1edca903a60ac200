/* One FastCGI request: its parameters and its body. */
#ifndef STEEP_REQUEST_H
#define STEEP_REQUEST_H

#include "base/attributes.h"
#include "base/error.h"

#include <fcgiapp.h>
#include <stdbool.h>
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
    size_t body_share;    /* bytes taken from the budget */
    struct request *next; /* in a list of those that nobody answers at the moment */
};

/* Prepares it for request_accept. */
void request_init(struct request *request);

/* The same in memory that request_free frees, once it is finished; NULL if out of memory. */
struct request *request_new(void) MUST_CHECK;
void request_free(struct request *request);

/*
 * Reads the head of a request from a connection, which is then the request's. It blocks
 * until the head has arrived. False, and the connection is closed, if the peer has closed
 * it or sends something else.
 */
bool request_accept(struct request *request, int fd) MUST_CHECK;

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

/* Whether the method is HEAD. */
bool request_is_head(const struct request *request) MUST_CHECK;

/* Reads CONTENT_LENGTH: ERROR_PAYLOAD_TOO_LARGE above most, ERROR_INVALID_REQUEST if no number. */
enum error request_body_length(const struct request *request, size_t most,
                               size_t *length) MUST_CHECK;

/*
 * Reads the whole body, of at most BUDGET_BYTES, into memory that request_free_body
 * frees. One that counts in the budget (budget.h) waits for its share, and is then read,
 * until deadline (clock_ms); a small one arrives when it does.
 *
 * ERROR_INVALID_REQUEST if it arrived incomplete, ERROR_UNAVAILABLE if not before the
 * deadline, ERROR_INTERNAL if out of memory.
 */
enum error request_read_body(struct request *request, size_t length, int64_t deadline) MUST_CHECK;
void request_free_body(struct request *request);

/*
 * Ends the exchange with nginx, which sends the reply on its way, and closes the
 * connection. The body stays, the parameters don't. May be called again.
 */
void request_finish(struct request *request);

/*
 * Breaks the exchange off: closes the connection without an end of the answer. nginx passes
 * that on as a broken answer, provided that it keeps its connections (fastcgi_keep_conn).
 */
void request_break(struct request *request);

/* How long a write to nginx waits until nginx takes at least one byte; then it fails. */
void request_limit_writes(const struct request *request, int ms);

/*
 * Whether nginx keeps the connection for another request. Reads the rest of this one,
 * where the next one begins; false if it does not arrive within a moment.
 */
bool request_can_be_kept(struct request *request) MUST_CHECK;

/*
 * As request_finish, but leaves the connection open and gives it to the caller; -1 if it
 * broke. Any thread may accept its next request. Only after request_can_be_kept.
 */
int request_release(struct request *request) MUST_CHECK;

#endif
