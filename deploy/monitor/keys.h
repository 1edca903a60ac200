/*
 * The monitor's key pair, in the format that other monitors use: key.priv is
 * the 32-byte seed of an Ed25519 key pair (RFC 8032), key.pub the public key
 * in base64 with a newline.
 */
#ifndef STEEP_KEYS_H
#define STEEP_KEYS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    KEYS_SECRET_BYTES = 64,
    KEYS_SIGNATURE_TEXT_BYTES = 88, /* base64 of a signature, without the terminator */
};

struct keys {
    unsigned char secret[KEYS_SECRET_BYTES];
};

/*
 * Reads a private key, which must be a file of 32 bytes that only its owner can
 * read. Returns NULL, or what is wrong with it. Erase with keys_wipe.
 */
const char *keys_read(struct keys *keys, const char *path);
void keys_wipe(struct keys *keys);

/* Signs a body; text: base64, NUL-terminated. */
void keys_sign(const struct keys *keys, const char *body, size_t length,
               char text[static KEYS_SIGNATURE_TEXT_BYTES + 1]);

/*
 * The keygen command: makes key.priv (mode 0600) and key.pub in a folder, and
 * prints the command that registers the key. Returns the exit status: 1, after
 * a message, if one of them exists or can't be written.
 */
int keys_generate(const char *folder, const char *source);

#endif
