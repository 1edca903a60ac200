/*
 * The signed batches that the bench sends. They are made before the measurement
 * starts. A source's key is derived from its name, so that `load keys` and
 * `load post` agree on it.
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

/* Writes the name and the public key, in base64, of a source, numbered from 0. */
void bodies_source(int number, char source[static BODIES_SOURCE_BYTES],
                   char key[static BODIES_KEY_BYTES]);

/*
 * Makes a batch of events of one source with new ids, each event about
 * event_bytes long. Exits if out of memory. Caller frees the text.
 */
void bodies_make(struct body *body, int source, int events, size_t event_bytes);

#endif
