/* The reply: a status, headers and a body. */
#ifndef STEEP_REPLY_H
#define STEEP_REPLY_H

#include "base/error.h"
#include "http/request.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text that grows. Once memory is short, is_short is set and nothing more is added. */
struct reply_text {
    char *text;
    size_t length;
    size_t size;
    bool is_short;
};

void reply_add(struct reply_text *out, const char *text, size_t length);
void reply_add_text(struct reply_text *out, const char *text);
void reply_add_integer(struct reply_text *out, int64_t value);
void reply_printf(struct reply_text *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Adds a JSON string (RFC 8259), quotes included, of valid UTF-8. */
void reply_add_string(struct reply_text *out, const char *text, size_t length);

/* Clears the text, and keeps its memory unless it is large. reply_free frees it. */
void reply_reset(struct reply_text *out);
void reply_free(struct reply_text *out);

/* {"error": …, "message": …} of an error. */
void reply_add_error(struct reply_text *out, enum error error);

/*
 * Replaces a reply that is incomplete, because memory was short, by that of
 * ERROR_INTERNAL. Returns the error to send.
 */
enum error reply_settle(struct reply_text *out, enum error error) MUST_CHECK;

/*
 * Sends a reply with the status of error (200 for ERROR_NONE) and the headers that go
 * with it: Allow (the list of methods, for a 405), WWW-Authenticate, Retry-After. A HEAD
 * request gets the headers alone. False if the client has left.
 */
bool reply_send(struct request *request, enum error error, const char *allow,
                const struct reply_text *body);

/* The same with another Content-Type than application/json. */
bool reply_send_as(struct request *request, enum error error, const char *allow, const char *type,
                   const struct reply_text *body);

#endif
