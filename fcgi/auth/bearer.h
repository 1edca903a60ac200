/* The bearer token of a query (RFC 6750, section 2.1). */
#ifndef STEEP_BEARER_H
#define STEEP_BEARER_H

#include "base/error.h"

#include <stddef.h>

enum { BEARER_DIGEST_BYTES = 32 };

/*
 * Reads the token of an Authorization header, with the scheme in any case, and writes
 * the SHA-256 of its characters. ERROR_MISSING_TOKEN if header is NULL or empty,
 * ERROR_INVALID_TOKEN for another scheme or no token.
 */
enum error bearer_digest(const char *header,
                         unsigned char digest[static BEARER_DIGEST_BYTES]) MUST_CHECK;

#endif
