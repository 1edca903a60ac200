/*
 * What the bench sends: signed batches of events, whole before any clock runs.
 * A source's key follows from its name, so that `load keys` and `load post`
 * agree without a file between them.
 */
#ifndef BENCH_BODIES_H
#define BENCH_BODIES_H

#include <sodium.h>
#include <stddef.h>

enum {
    BODIES_SOURCE_BYTES = 32,
    BODIES_SIGNATURE_BYTES =
        sodium_base64_ENCODED_LEN(crypto_sign_BYTES, sodium_base64_VARIANT_ORIGINAL),
    BODIES_KEY_BYTES =
        sodium_base64_ENCODED_LEN(crypto_sign_PUBLICKEYBYTES, sodium_base64_VARIANT_ORIGINAL),
};

struct body {
    char source[BODIES_SOURCE_BYTES];
    char signature[BODIES_SIGNATURE_BYTES]; /* base64, for X-Signature */
    char *text;                             /* a JSON array */
    size_t length;
};

/* Writes the name of a source, by number from 0, and its public key in base64. */
void bodies_source(int number, char source[static BODIES_SOURCE_BYTES],
                   char key[static BODIES_KEY_BYTES]);

/*
 * Makes a batch of events of one source with ids of its own, each event about
 * event_bytes long. Ends the program when memory is short; free the text.
 */
void bodies_make(struct body *body, int source, int events, size_t event_bytes);

#endif
