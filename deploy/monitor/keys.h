/*
 * The monitor's key, in the form that monitors in the field use: key.priv is
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
 * Reads a private key's file. NULL, or why it can't be taken: others can read
 * it, or it is not 32 bytes. Wipe with keys_wipe.
 */
const char *keys_read(struct keys *keys, const char *path);
void keys_wipe(struct keys *keys);

/* Signs a body; base64 and a terminator. */
void keys_sign(const struct keys *keys, const char *body, size_t length,
               char text[static KEYS_SIGNATURE_TEXT_BYTES + 1]);

/*
 * keygen: makes key.priv (mode 0600) and key.pub in a folder, and prints how
 * to register the key. Exit status: 0, or 1 after a sentence where one of
 * them is there already or can't be written.
 */
int keys_generate(const char *folder, const char *source);

#endif
