/*
 * Who is known: the public keys of monitors and the digests of tokens.
 *
 * What the environment gives stands from the start and stays. What the
 * database gives is a snapshot that is replaced whole; until the first one is
 * there, nobody can be called unknown. All functions may be called from any
 * thread, except that keys and tokens of the environment are added before the
 * threads start.
 */
#ifndef STEEP_KEYRING_H
#define STEEP_KEYRING_H

#include "auth/bearer.h"
#include "auth/signature.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KEYRING_SOURCE_BYTES = 255,
    KEYRING_LABEL_BYTES = 64,
    KEYRING_KEYS_PER_SOURCE = 8, /* from the environment, and again from the database */
    KEYRING_KEYS_FOUND = 2 * KEYRING_KEYS_PER_SOURCE,
};

#define KEYRING_NEVER INT64_MAX

struct keyring_key {
    unsigned char key[SIGNATURE_KEY_BYTES];
    unsigned char source_length; /* 1 to 255 */
    char source[KEYRING_SOURCE_BYTES];
};

struct keyring_token {
    unsigned char digest[BEARER_DIGEST_BYTES];
    int64_t expires; /* Unix time; KEYRING_NEVER */
    char label[KEYRING_LABEL_BYTES + 1];
};

struct keyring;

/* Frees with keyring_free; NULL when memory is short. */
struct keyring *keyring_new(void);
void keyring_free(struct keyring *keyring);

/*
 * Adds "source:key,source:key" (VIBETEA_PUBLIC_KEYS), each key as
 * signature_parse_key takes it; spaces around the parts and empty items are
 * passed over. Returns NULL, or a sentence that says what is wrong (static).
 */
const char *keyring_add_public_keys(struct keyring *keyring, const char *list);

/* Adds a token (VIBETEA_SUBSCRIBER_TOKEN), less the white space around it. Returns as above. */
const char *keyring_add_token(struct keyring *keyring, const char *token);

/*
 * Replaces the database's snapshot. Takes the array over, which malloc made
 * (NULL for none), sorts it, and frees it later.
 */
void keyring_replace_keys(struct keyring *keyring, struct keyring_key *keys, size_t count);
void keyring_replace_tokens(struct keyring *keyring, struct keyring_token *tokens, size_t count);

/* How many keys and tokens the environment gave, and the snapshot has. */
void keyring_count(struct keyring *keyring, size_t *fixed, size_t *snapshot);

/* Whether there has been a snapshot. */
bool keyring_is_read(struct keyring *keyring);

/*
 * Copies a source's keys and returns their number. *is_complete says whether
 * the database's were among those looked at.
 */
size_t keyring_find_keys(struct keyring *keyring, const char *source, size_t length,
                         unsigned char keys[static KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES],
                         bool *is_complete);

/*
 * Whether a digest is that of a token that has not expired at now (Unix time).
 * Compares with every token, each in constant time. Writes its label where it is found.
 */
bool keyring_find_token(struct keyring *keyring,
                        const unsigned char digest[static BEARER_DIGEST_BYTES], int64_t now,
                        char label[static KEYRING_LABEL_BYTES + 1], bool *is_complete);

#endif
