/* The bearer token of a query (RFC 6750, section 2.1). */
#ifndef STEEP_BEARER_H
#define STEEP_BEARER_H

#include "base/error.h"

#include <stddef.h>

enum { BEARER_DIGEST_BYTES = 32 };

/*
 * Takes the token out of an Authorization header, the scheme in any case, and
 * writes the SHA-256 of its characters. header is NULL where none was sent:
 * ERROR_MISSING_TOKEN, also for an empty one; ERROR_INVALID_TOKEN for another
 * scheme or no token.
 */
enum error bearer_digest(const char *header,
                         unsigned char digest[static BEARER_DIGEST_BYTES]) MUST_CHECK;

#endif
