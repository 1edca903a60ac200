/* Ed25519 (RFC 8032): public keys of monitors, and signatures of their batches. */
#ifndef STEEP_SIGNATURE_H
#define STEEP_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>

enum {
    SIGNATURE_BYTES = 64,
    SIGNATURE_KEY_BYTES = 32,
    SIGNATURE_KEY_TEXT_BYTES = 44, /* base64 of a key, without the terminator */
};

/*
 * Reads X-Signature: standard padded base64 (RFC 4648) of exactly 64 bytes. False for
 * anything else; the array's content is then undefined.
 */
bool signature_decode(const char *text, size_t length,
                      unsigned char signature[static SIGNATURE_BYTES]);

/*
 * Whether one of the keys verifies the signature of exactly these bytes. libsodium
 * refuses malleable signatures and keys of small order.
 */
bool signature_verify(const unsigned char signature[static SIGNATURE_BYTES],
                      const unsigned char *body, size_t length,
                      unsigned char (*keys)[SIGNATURE_KEY_BYTES], size_t key_count);

/*
 * Reads a public key: base64 of the 32 raw bytes, or of the 44 bytes of its
 * SubjectPublicKeyInfo (RFC 8410). False for anything else, and for 32 bytes that are
 * not a point of the main subgroup (all zero, small order, not on the curve); the
 * array's content is then undefined.
 */
bool signature_parse_key(const char *text, size_t length,
                         unsigned char key[static SIGNATURE_KEY_BYTES]);

/* Writes a key as base64 and a terminator. */
void signature_format_key(const unsigned char key[static SIGNATURE_KEY_BYTES],
                          char text[static SIGNATURE_KEY_TEXT_BYTES + 1]);

#endif
