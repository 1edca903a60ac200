/*
 * The credentials: public keys of monitors, or digests of tokens. A keyring has one kind.
 *
 * Those of the environment are there from the start and stay. Those of the database
 * are a snapshot. What was read of it is put together in a draft, and then takes the
 * place of the whole snapshot or of some names in it, at once: a lookup waits only while
 * a pointer is set. Before the first snapshot, nobody can be called unknown.
 *
 * All functions may be called from any thread, but the environment's credentials must be
 * added before the threads start, and one thread alone has drafts.
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

struct keyring;
struct keyring_draft;

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

/* Free with keyring_draft_free, which takes NULL; NULL if out of memory. */
struct keyring_draft *keyring_draft_new(void);
void keyring_draft_free(struct keyring_draft *draft);

/*
 * Add to a draft, in any order: a key of a source of 1 to KEYRING_SOURCE_BYTES; a token of a
 * label of 1 to KEYRING_LABEL_BYTES, with the time at which it expires (Unix time;
 * KEYRING_NEVER), and its scope (NULL: all sources), of which it takes over a use; or a source or
 * label that has nothing in the database, as long as nothing else is added for it. False for
 * another length, and if out of memory: the draft is then the same as before.
 */
bool keyring_draft_key(struct keyring_draft *draft, const char *source, size_t length,
                       const unsigned char key[static SIGNATURE_KEY_BYTES]) MUST_CHECK;
bool keyring_draft_token(struct keyring_draft *draft, const char *label, size_t length,
                         const unsigned char digest[static BEARER_DIGEST_BYTES], int64_t expires,
                         struct scope *scope) MUST_CHECK;
bool keyring_draft_none(struct keyring_draft *draft, const char *name, size_t length) MUST_CHECK;

/*
 * Puts a draft in place of the snapshot, or of what the snapshot has of the draft's names. The
 * draft is empty afterwards. False if out of memory: nothing has changed then.
 */
bool keyring_replace(struct keyring *keyring, struct keyring_draft *draft) MUST_CHECK;
bool keyring_change(struct keyring *keyring, struct keyring_draft *draft) MUST_CHECK;

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
