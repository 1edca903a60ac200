#include "auth/bearer.h"

#include <sodium.h>
#include <string.h>
#include <strings.h>

_Static_assert(BEARER_DIGEST_BYTES == crypto_hash_sha256_BYTES, "SHA-256 is 32 bytes");

enum error bearer_digest(const char *header, unsigned char digest[static BEARER_DIGEST_BYTES])
{
    static const char SCHEME[] = "Bearer ";
    const char *token;

    if (header == NULL || *header == '\0')
        return ERROR_MISSING_TOKEN;
    if (strncasecmp(header, SCHEME, strlen(SCHEME)) != 0)
        return ERROR_INVALID_TOKEN;
    token = header + strlen(SCHEME);
    token += strspn(token, " ");
    if (*token == '\0')
        return ERROR_INVALID_TOKEN;
    crypto_hash_sha256(digest, (const unsigned char *)token, strlen(token));
    return ERROR_NONE;
}
