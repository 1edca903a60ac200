/*
 * Posts one batch over HTTPS; the only file that calls libcurl. TLS 1.2 or
 * later, the certificate always verified, redirects never followed.
 */
#ifndef STEEP_POST_H
#define STEEP_POST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    POST_URL_BYTES = 2048,
    POST_RESPONSE_BYTES = 1024 * 1024, /* of a response's body; a 422 for 1000 events has 250 KB */
    POST_TIMEOUT_MS = 30000,
    POST_MIN_BYTES_PER_MS = 8, /* 64 kbit/s: the time added to the timeout for the body */
    POST_CONNECT_TIMEOUT_MS = 10000,
    POST_FAILURE_BYTES = 200,
    POST_RETRY_AFTER_BYTES = 64,
};

struct post;

/* The response, or why there is none. */
struct post_response {
    int status;       /* HTTP status; 0 if no response arrived */
    bool is_complete; /* the whole response arrived, and its body was not too large */
    const char *body; /* NUL-terminated; owned by the post, valid until the next post_send */
    size_t length;
    char retry_after[POST_RETRY_AFTER_BYTES]; /* empty if the header is missing */
    char failure[POST_FAILURE_BYTES];         /* libcurl's message; empty on success */
    int64_t ms;                               /* duration */
};

/*
 * Makes the URL of /ingest from a base URL: https, with a host, without user,
 * query and fragment. Returns NULL, or what is wrong with it.
 */
const char *post_make_url(const char *base, char url[static POST_URL_BYTES]);

/* Checks that a file holds a certificate in PEM. Returns NULL, or what is wrong with it. */
const char *post_check_ca(const char *path);

/* Initializes libcurl; call once, before there are threads. */
bool post_init(void) MUST_CHECK;

/*
 * url: from post_make_url. ca_file: NULL trusts the system's authorities.
 * Free with post_free. NULL: no memory, or the file can't be read.
 */
struct post *post_new(const char *url, const char *ca_file);
void post_free(struct post *post);

/* How many milliseconds a request may still take; called again after post_wake. */
typedef int64_t post_limit(void *context);

/* Sends a body once, under a name, and waits for the response. signature: base64. */
void post_send(struct post *post, const char *source, const char *body, size_t length,
               const char *signature, post_limit *limit, void *context,
               struct post_response *response);

/* Has post_send call the limit again; any thread. */
void post_wake(struct post *post);

#endif
