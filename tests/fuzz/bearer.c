/* The Authorization header. */
#include "auth/bearer.h"
#include "fuzz.h"

#include <sodium.h>

/* The token, by a parser of its own; NULL if there is none. */
static const char *find_token(const char *header)
{
    static const char SCHEME[] = "BEARER";
    size_t at = 0;

    for (; SCHEME[at] != '\0'; at++) {
        if ((header[at] & ~0x20) != SCHEME[at])
            return NULL;
    }
    if (header[at] != ' ')
        return NULL;
    while (header[at] == ' ')
        at++;
    return header[at] != '\0' ? header + at : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *header = copy_text(data, size);
    const char *token = find_token(header);
    unsigned char digest[BEARER_DIGEST_BYTES];
    enum error error = bearer_digest(header, digest);

    require((error == ERROR_MISSING_TOKEN) == (*header == '\0'),
            "an empty header counts as missing");
    require((error == ERROR_NONE) == (token != NULL),
            "a header is accepted if it has the scheme and a token");
    require(error == ERROR_NONE || error == ERROR_MISSING_TOKEN || error == ERROR_INVALID_TOKEN,
            "the error is missing or invalid");
    if (error == ERROR_NONE) {
        unsigned char expected[sizeof(digest)];

        crypto_hash_sha256(expected, (const unsigned char *)token, strlen(token));
        require(memcmp(digest, expected, sizeof(digest)) == 0, "the digest is of the whole token");
    }
    free(header);
    return 0;
}
