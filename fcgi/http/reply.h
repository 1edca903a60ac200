/* The reply: a status, headers and a body. */
#ifndef STEEP_REPLY_H
#define STEEP_REPLY_H

#include "base/buffer.h"
#include "base/error.h"
#include "http/request.h"

#include <stdbool.h>

/* {"error": …, "message": …} of an error. */
void reply_add_error(struct buffer *out, enum error error);

/*
 * Replaces a reply that is incomplete, because memory was short, by that of
 * ERROR_INTERNAL. Returns the error to send.
 */
enum error reply_settle(struct buffer *out, enum error error) MUST_CHECK;

/*
 * Sends a reply with the status of error (200 for ERROR_NONE) and the headers that go
 * with it: Allow (the list of methods, for a 405), WWW-Authenticate, Retry-After. A HEAD
 * request gets the headers alone. False if the client has left.
 */
bool reply_send(struct request *request, enum error error, const char *allow,
                const struct buffer *body);

/* The same with another Content-Type than application/json. */
bool reply_send_as(struct request *request, enum error error, const char *allow, const char *type,
                   const struct buffer *body);

/* How the body of an answer is encoded, and whether that depends on the client (Vary). */
enum reply_coding {
    REPLY_UNCODED,  /* not compressed for anybody */
    REPLY_IDENTITY, /* not compressed, as the client does not accept it */
    REPLY_GZIP,
};

/* Sends an answer of status 200 whose body may be compressed; false if the client has left. */
bool reply_send_coded(struct request *request, enum reply_coding coding, const struct buffer *body);

/*
 * The same in parts, without a Content-Length: the headers, and then the body by any number of
 * reply_add. A HEAD request gets the headers alone. Both return false if the client has left,
 * or if nginx took nothing for too long (request_limit_writes). An answer that can't be
 * completed must be broken off by request_break.
 */
bool reply_begin(struct request *request, enum reply_coding coding) MUST_CHECK;
bool reply_add(struct request *request, const struct buffer *part) MUST_CHECK;

#endif
