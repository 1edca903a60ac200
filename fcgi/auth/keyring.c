#include "auth/keyring.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* Keys in order of source. A program uses either the keys or the tokens. */
struct ring {
    struct keyring_key *keys;
    size_t key_count;
    struct keyring_token *tokens;
    size_t token_count;
};

struct keyring {
    pthread_rwlock_t lock;
    struct ring environment;
    struct ring snapshot; /* the database's */
    bool has_snapshot;
};

struct keyring *keyring_new(void)
{
    struct keyring *keyring = calloc(1, sizeof(*keyring));

    if (keyring != NULL && pthread_rwlock_init(&keyring->lock, NULL) != 0) {
        free(keyring);
        return NULL;
    }
    return keyring;
}

void keyring_free(struct keyring *keyring)
{
    if (keyring == NULL)
        return;
    free(keyring->environment.keys);
    free(keyring->environment.tokens);
    free(keyring->snapshot.keys);
    keyring_free_tokens(keyring->snapshot.tokens, keyring->snapshot.token_count);
    pthread_rwlock_destroy(&keyring->lock);
    free(keyring);
}

static int compare_source(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);

    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_keys(const void *a, const void *b)
{
    const struct keyring_key *left = a;
    const struct keyring_key *right = b;

    return compare_source(left->source, left->source_length, right->source, right->source_length);
}

static void trim(const char **text, size_t *length)
{
    while (*length > 0 && strchr(" \t\r\n", **text) != NULL) {
        ++*text;
        --*length;
    }
    while (*length > 0 && strchr(" \t\r\n", (*text)[*length - 1]) != NULL)
        --*length;
}

static bool is_printable(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    }
    return true;
}

/* Copies the keys of a source, behind those already found. */
static size_t find_keys(const struct ring *ring, const char *source, size_t length,
                        unsigned char (*keys)[SIGNATURE_KEY_BYTES])
{
    size_t low = 0;
    size_t high = ring->key_count;
    size_t found = 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct keyring_key *key = &ring->keys[middle];

        if (compare_source(key->source, key->source_length, source, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < ring->key_count && found < KEYRING_KEYS_PER_SOURCE; low++) {
        const struct keyring_key *key = &ring->keys[low];

        if (compare_source(key->source, key->source_length, source, length) != 0)
            break;
        memcpy(keys[found++], key->key, SIGNATURE_KEY_BYTES);
    }
    return found;
}

static const char *add_public_key(struct ring *ring, const char *item, size_t length)
{
    const char *colon = memchr(item, ':', length);
    const char *source = item;
    const char *key;
    size_t source_length, key_length;
    struct keyring_key *keys, *added;
    unsigned char found[KEYRING_KEYS_PER_SOURCE][SIGNATURE_KEY_BYTES];

    if (colon == NULL)
        return "an item is not of the form source:key";
    source_length = (size_t)(colon - item);
    key = colon + 1;
    key_length = length - source_length - 1;
    trim(&source, &source_length);
    trim(&key, &key_length);
    if (source_length == 0 || source_length > KEYRING_SOURCE_BYTES ||
        !is_printable(source, source_length))
        return "a source is not 1 to 255 bytes of printable ASCII";

    keys = realloc(ring->keys, (ring->key_count + 1) * sizeof(*keys));
    if (keys == NULL)
        return "out of memory";
    ring->keys = keys;
    added = &keys[ring->key_count];
    if (!signature_parse_key(key, key_length, added->key))
        return "a key is not an Ed25519 public key in base64";
    if (find_keys(ring, source, source_length, found) == KEYRING_KEYS_PER_SOURCE)
        return "a source has more than 8 keys";
    memcpy(added->source, source, source_length);
    added->source_length = (unsigned char)source_length;
    ring->key_count++;
    qsort(ring->keys, ring->key_count, sizeof(*keys), compare_keys);
    return NULL;
}

const char *keyring_add_public_keys(struct keyring *keyring, const char *list)
{
    while (*list != '\0') {
        const char *item = list;
        size_t length = strcspn(list, ",");
        const char *problem = NULL;

        list += length + (list[length] == ',');
        trim(&item, &length);
        if (length > 0)
            problem = add_public_key(&keyring->environment, item, length);
        if (problem != NULL)
            return problem;
    }
    return NULL;
}

const char *keyring_add_token(struct keyring *keyring, const char *token)
{
    size_t length = strlen(token);
    struct keyring_token *added;

    trim(&token, &length);
    if (length == 0)
        return NULL;
    if (!is_printable(token, length))
        return "the token is not printable ASCII";
    added = calloc(1, sizeof(*added));
    if (added == NULL)
        return "out of memory";
    crypto_hash_sha256(added->digest, (const unsigned char *)token, length);
    added->expires = KEYRING_NEVER;
    memcpy(added->label, "environment", sizeof("environment"));
    free(keyring->environment.tokens);
    keyring->environment.tokens = added;
    keyring->environment.token_count = 1;
    return NULL;
}

void keyring_free_tokens(struct keyring_token *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        scope_release(tokens[i].scope);
    free(tokens);
}

static void replace(struct keyring *keyring, struct ring snapshot)
{
    struct ring old;

    pthread_rwlock_wrlock(&keyring->lock);
    old = keyring->snapshot;
    keyring->snapshot = snapshot;
    keyring->has_snapshot = true;
    pthread_rwlock_unlock(&keyring->lock);
    free(old.keys);
    keyring_free_tokens(old.tokens, old.token_count);
}

void keyring_replace_keys(struct keyring *keyring, struct keyring_key *keys, size_t count)
{
    if (count > 0)
        qsort(keys, count, sizeof(*keys), compare_keys);
    replace(keyring, (struct ring){.keys = keys, .key_count = count});
}

void keyring_replace_tokens(struct keyring *keyring, struct keyring_token *tokens, size_t count)
{
    replace(keyring, (struct ring){.tokens = tokens, .token_count = count});
}

void keyring_count(struct keyring *keyring, size_t *environment, size_t *database)
{
    pthread_rwlock_rdlock(&keyring->lock);
    *environment = keyring->environment.key_count + keyring->environment.token_count;
    *database = keyring->snapshot.key_count + keyring->snapshot.token_count;
    pthread_rwlock_unlock(&keyring->lock);
}

bool keyring_has_snapshot(struct keyring *keyring)
{
    bool is_read;

    pthread_rwlock_rdlock(&keyring->lock);
    is_read = keyring->has_snapshot;
    pthread_rwlock_unlock(&keyring->lock);
    return is_read;
}

size_t keyring_find_keys(struct keyring *keyring, const char *source, size_t length,
                         unsigned char keys[static KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES],
                         bool *is_complete)
{
    size_t found;

    pthread_rwlock_rdlock(&keyring->lock);
    found = find_keys(&keyring->environment, source, length, keys);
    found += find_keys(&keyring->snapshot, source, length, keys + found);
    *is_complete = keyring->has_snapshot;
    pthread_rwlock_unlock(&keyring->lock);
    return found;
}

/*
 * Compares SHA-256 digests, each in constant time and with all of them, so that the time
 * says neither which one matched nor how much of one.
 */
static const struct keyring_token *find_token(const struct ring *ring, const unsigned char *digest,
                                              int64_t now)
{
    const struct keyring_token *found = NULL;

    for (size_t i = 0; i < ring->token_count; i++) {
        if (sodium_memcmp(ring->tokens[i].digest, digest, BEARER_DIGEST_BYTES) == 0 &&
            now < ring->tokens[i].expires)
            found = &ring->tokens[i];
    }
    return found;
}

bool keyring_find_token(struct keyring *keyring,
                        const unsigned char digest[static BEARER_DIGEST_BYTES], int64_t now,
                        char label[static KEYRING_LABEL_BYTES + 1], struct scope **scope,
                        bool *is_complete)
{
    const struct keyring_token *environment, *read, *found;

    pthread_rwlock_rdlock(&keyring->lock);
    environment = find_token(&keyring->environment, digest, now);
    read = find_token(&keyring->snapshot, digest, now);
    found = read != NULL ? read : environment;
    if (found != NULL)
        memcpy(label, found->label, sizeof(found->label));
    *scope = found != NULL && environment == NULL ? scope_share(found->scope) : NULL;
    *is_complete = keyring->has_snapshot;
    pthread_rwlock_unlock(&keyring->lock);
    return found != NULL;
}
