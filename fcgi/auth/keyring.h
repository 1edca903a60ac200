/*
 * The credentials: public keys of monitors, and digests of tokens.
 *
 * Those of the environment are there from the start and stay. Those of the database
 * are a snapshot that is replaced whole; before the first one, nobody can be called
 * unknown. All functions may be called from any thread, but the environment's
 * credentials must be added before the threads start.
 */
#ifndef STEEP_KEYRING_H
#define STEEP_KEYRING_H

#include "auth/bearer.h"
#include "auth/scope.h"
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
    struct scope *scope; /* NULL: all sources */
};

struct keyring;

/* Free with keyring_free; NULL if out of memory. */
struct keyring *keyring_new(void);
void keyring_free(struct keyring *keyring);

/*
 * Adds "source:key,source:key" (VIBETEA_PUBLIC_KEYS), each key in a form of
 * signature_parse_key. Ignores white space around the parts, and empty items.
 * Returns NULL, or a sentence that says what is wrong (static).
 */
const char *keyring_add_public_keys(struct keyring *keyring, const char *list);

/* Adds a token (VIBETEA_SUBSCRIBER_TOKEN) without the white space around it. Returns as above. */
const char *keyring_add_token(struct keyring *keyring, const char *token);

/*
 * Replaces the database's snapshot. Takes ownership of the array, which comes from
 * malloc (NULL for none), and releases its scopes when it is replaced.
 */
void keyring_replace_keys(struct keyring *keyring, struct keyring_key *keys, size_t count);
void keyring_replace_tokens(struct keyring *keyring, struct keyring_token *tokens, size_t count);

/* Frees tokens, and releases their scopes; takes NULL for none. */
void keyring_free_tokens(struct keyring_token *tokens, size_t count);

/* Counts the credentials of the environment and of the snapshot. */
void keyring_count(struct keyring *keyring, size_t *environment, size_t *database);

/* Whether the database's credentials have been read. */
bool keyring_has_snapshot(struct keyring *keyring);

/*
 * Copies a source's keys and returns their number. *is_complete is false before the
 * first snapshot.
 */
size_t keyring_find_keys(struct keyring *keyring, const char *source, size_t length,
                         unsigned char keys[static KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES],
                         bool *is_complete);

/*
 * Whether a digest is that of a token that has not expired at now (Unix time), and its
 * label and scope, which the caller releases (NULL: all sources, as for every token of the
 * environment, even if the database has it too). Compares with every token, each in constant time.
 */
bool keyring_find_token(struct keyring *keyring,
                        const unsigned char digest[static BEARER_DIGEST_BYTES], int64_t now,
                        char label[static KEYRING_LABEL_BYTES + 1], struct scope **scope,
                        bool *is_complete);

#endif
