/*
 * One try of a batch over HTTPS: the only file that calls libcurl. TLS 1.2 or
 * later, the certificate always verified, no redirect followed.
 */
#ifndef STEEP_POST_H
#define STEEP_POST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    POST_URL_BYTES = 2048,
    POST_ANSWER_BYTES = 1024 * 1024, /* of an answer's body; a 422 for 1000 events has 250 KB */
    POST_TIMEOUT_MS = 30000,
    POST_BYTES_PER_MS = 8, /* the slowest line that gets more time for what is sent: 64 kbit/s */
    POST_CONNECT_MS = 10000,
    POST_DETAIL_BYTES = 256,
    POST_RETRY_AFTER_BYTES = 64,
};

struct post;

/* What came back, or why nothing did. */
struct post_answer {
    int status;       /* HTTP status; 0 where none came */
    bool is_whole;    /* the answer arrived to its end, and its body was not too large */
    const char *body; /* the post's, until the next try; ended with a NUL */
    size_t length;
    char retry_after[POST_RETRY_AFTER_BYTES]; /* empty where there was none */
    char failure[POST_DETAIL_BYTES];          /* what libcurl says, where something failed */
    int64_t ms;                               /* how long it took */
};

/*
 * Makes the address of /ingest from a base address: https, with a host,
 * without user, query and fragment. NULL, or why it can't be taken.
 */
const char *post_make_url(const char *base, char url[static POST_URL_BYTES]);

/* NULL, or why a file can't be one of authorities: it must have a certificate in PEM. */
const char *post_check_authorities(const char *path);

/* Once, before any thread. */
bool post_init(void) MUST_CHECK;

/*
 * Makes what tries need: the address, the monitor's name and, unless NULL, a
 * file of authorities in place of the system's. Free with post_free. NULL:
 * no memory, or the authorities can't be read.
 */
struct post *post_new(const char *url, const char *source, const char *authorities);
void post_free(struct post *post);

/* How many milliseconds a try may still take; asked again after post_wake. */
typedef int64_t post_limit(void *context);

/* Tries once. signature: base64. */
void post_send(struct post *post, const char *body, size_t length, const char *signature,
               post_limit *limit, void *context, struct post_answer *answer);

/* From another thread: has the limit looked at again. */
void post_wake(struct post *post);

#endif
