#include "auth/keyring.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* A key or a token: a keyring has one kind. */
struct entry {
    unsigned char bytes[SIGNATURE_KEY_BYTES]; /* the key, or the token's digest */
    int64_t expires;                          /* of a token */
    struct scope *scope;                      /* of a token */
    bool is_none;                             /* in a draft: there is nothing of this name */
    unsigned char length;
    char name[]; /* the source, or the label */
};

_Static_assert((int)SIGNATURE_KEY_BYTES == (int)BEARER_DIGEST_BYTES,
               "an entry has room for either");

/* In order of name. */
struct ring {
    struct entry **entries;
    size_t count;
};

struct keyring {
    pthread_rwlock_t lock;
    struct ring environment;
    struct ring snapshot; /* the database's */
    bool has_snapshot;
};

/* In the order in which they were added. */
struct keyring_draft {
    struct ring added;
    size_t room;
};

static void free_entry(struct entry *entry)
{
    if (entry != NULL)
        scope_release(entry->scope);
    free(entry);
}

static void free_ring(struct ring *ring)
{
    for (size_t i = 0; i < ring->count; i++)
        free_entry(ring->entries[i]);
    free(ring->entries);
    *ring = (struct ring){0};
}

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
    free_ring(&keyring->environment);
    free_ring(&keyring->snapshot);
    pthread_rwlock_destroy(&keyring->lock);
    free(keyring);
}

static int compare_name(const struct entry *entry, const char *name, size_t length)
{
    int order = memcmp(entry->name, name, entry->length < length ? entry->length : length);

    return order != 0 ? order : (entry->length > length) - (entry->length < length);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *right = *(struct entry *const *)b;

    return compare_name(*(struct entry *const *)a, right->name, right->length);
}

static void sort(struct ring *ring)
{
    if (ring->count > 0)
        qsort(ring->entries, ring->count, sizeof(struct entry *), compare_entries);
}

/* The first entry, from a position on, that is not before a name. */
static size_t find_first(const struct ring *ring, size_t from, const char *name, size_t length)
{
    size_t low = from;
    size_t high = ring->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_name(ring->entries[middle], name, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_of(const struct ring *ring, size_t position, const char *name, size_t length)
{
    return position < ring->count && compare_name(ring->entries[position], name, length) == 0;
}

static struct entry *new_entry(const char *name, size_t length, const unsigned char *bytes)
{
    struct entry *entry = calloc(1, sizeof(*entry) + length);

    if (entry == NULL)
        return NULL;
    if (bytes != NULL)
        memcpy(entry->bytes, bytes, sizeof(entry->bytes));
    entry->length = (unsigned char)length;
    memcpy(entry->name, name, length);
    return entry;
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
    size_t first = find_first(ring, 0, source, length);
    size_t found = 0;

    while (found < KEYRING_KEYS_PER_SOURCE && is_of(ring, first + found, source, length)) {
        memcpy(keys[found], ring->entries[first + found]->bytes, SIGNATURE_KEY_BYTES);
        found++;
    }
    return found;
}

static const char *add_public_key(struct ring *ring, const char *item, size_t length)
{
    const char *colon = memchr(item, ':', length);
    const char *source = item;
    const char *key;
    size_t source_length, key_length;
    struct entry **entries, *added;
    unsigned char bytes[SIGNATURE_KEY_BYTES];
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
    if (!signature_parse_key(key, key_length, bytes))
        return "a key is not an Ed25519 public key in base64";
    if (find_keys(ring, source, source_length, found) == KEYRING_KEYS_PER_SOURCE)
        return "a source has more than 8 keys";

    entries = realloc(ring->entries, (ring->count + 1) * sizeof(struct entry *));
    if (entries == NULL)
        return "out of memory";
    ring->entries = entries;
    added = new_entry(source, source_length, bytes);
    if (added == NULL)
        return "out of memory";
    entries[ring->count++] = added;
    sort(ring);
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
    static const char LABEL[] = "environment";
    size_t length = strlen(token);
    unsigned char digest[BEARER_DIGEST_BYTES];
    struct ring ring = {.count = 1};

    trim(&token, &length);
    if (length == 0)
        return NULL;
    if (!is_printable(token, length))
        return "the token is not printable ASCII";
    crypto_hash_sha256(digest, (const unsigned char *)token, length);
    ring.entries = malloc(sizeof(struct entry *));
    if (ring.entries == NULL)
        return "out of memory";
    ring.entries[0] = new_entry(LABEL, strlen(LABEL), digest);
    if (ring.entries[0] == NULL) {
        free(ring.entries);
        return "out of memory";
    }
    ring.entries[0]->expires = KEYRING_NEVER;
    free_ring(&keyring->environment);
    keyring->environment = ring;
    return NULL;
}

struct keyring_draft *keyring_draft_new(void)
{
    return calloc(1, sizeof(struct keyring_draft));
}

void keyring_draft_free(struct keyring_draft *draft)
{
    if (draft != NULL)
        free_ring(&draft->added);
    free(draft);
}

/* Adds an entry, and returns it; NULL if out of memory. */
static struct entry *add(struct keyring_draft *draft, const char *name, size_t length,
                         const unsigned char *bytes)
{
    struct ring *added = &draft->added;
    struct entry *entry;

    if (added->count == draft->room) {
        size_t room = draft->room > 0 ? 2 * draft->room : 16;
        struct entry **entries = realloc(added->entries, room * sizeof(struct entry *));

        if (entries == NULL)
            return NULL;
        added->entries = entries;
        draft->room = room;
    }
    entry = new_entry(name, length, bytes);
    if (entry != NULL)
        added->entries[added->count++] = entry;
    return entry;
}

bool keyring_draft_key(struct keyring_draft *draft, const char *source, size_t length,
                       const unsigned char key[static SIGNATURE_KEY_BYTES])
{
    return length > 0 && length <= KEYRING_SOURCE_BYTES && add(draft, source, length, key) != NULL;
}

bool keyring_draft_token(struct keyring_draft *draft, const char *label, size_t length,
                         const unsigned char digest[static BEARER_DIGEST_BYTES], int64_t expires,
                         struct scope *scope)
{
    struct entry *entry =
        length > 0 && length <= KEYRING_LABEL_BYTES ? add(draft, label, length, digest) : NULL;

    if (entry == NULL)
        return false;
    entry->expires = expires;
    entry->scope = scope;
    return true;
}

bool keyring_draft_none(struct keyring_draft *draft, const char *name, size_t length)
{
    struct entry *entry =
        length > 0 && length <= KEYRING_SOURCE_BYTES ? add(draft, name, length, NULL) : NULL;

    if (entry == NULL)
        return false;
    entry->is_none = true;
    return true;
}

/* Appends entries of a ring, from a position until before another. */
static void append(struct ring *to, const struct ring *from, size_t begin, size_t end)
{
    if (end > begin)
        memcpy(to->entries + to->count, from->entries + begin,
               (end - begin) * sizeof(struct entry *));
    to->count += end - begin;
}

/* Room for as many entries as two rings have. */
static bool make_room(struct ring *ring, const struct ring *a, const struct ring *b)
{
    size_t count = a->count + b->count;

    *ring = (struct ring){.entries = malloc((count > 0 ? count : 1) * sizeof(struct entry *))};
    return ring->entries != NULL;
}

/*
 * Takes the entries of two rings, which are sorted: those of a name that added has are from
 * there. The others are in left.
 */
static void merge(const struct ring *old, const struct ring *added, struct ring *merged,
                  struct ring *left)
{
    size_t position = 0;

    for (size_t i = 0; i < added->count; i++) {
        const struct entry *entry = added->entries[i];
        size_t end = find_first(old, position, entry->name, entry->length);

        append(merged, old, position, end);
        position = end;
        while (is_of(old, end, entry->name, entry->length))
            end++;
        append(left, old, position, end);
        position = end;
        append(entry->is_none ? left : merged, added, i, i + 1);
    }
    append(merged, old, position, old->count);
}

/* Puts a draft in place of what the snapshot has of its names, or of all of it. */
static bool publish(struct keyring *keyring, struct keyring_draft *draft, bool is_whole)
{
    static const struct ring NONE = {0};
    /* No other thread changes the snapshot, so it can be read without the lock. */
    struct ring old = keyring->snapshot;
    const struct ring *base = is_whole ? &NONE : &old;
    struct ring merged, left;

    if (!make_room(&merged, base, &draft->added))
        return false;
    if (!make_room(&left, base, &draft->added)) {
        free(merged.entries);
        return false;
    }
    sort(&draft->added);
    merge(base, &draft->added, &merged, &left);

    pthread_rwlock_wrlock(&keyring->lock);
    keyring->snapshot = merged;
    keyring->has_snapshot = true;
    pthread_rwlock_unlock(&keyring->lock);

    free_ring(&left);
    if (is_whole)
        free_ring(&old);
    else
        free(old.entries);
    free(draft->added.entries);
    *draft = (struct keyring_draft){0};
    return true;
}

bool keyring_replace(struct keyring *keyring, struct keyring_draft *draft)
{
    return publish(keyring, draft, true);
}

bool keyring_change(struct keyring *keyring, struct keyring_draft *draft)
{
    return publish(keyring, draft, false);
}

void keyring_count(struct keyring *keyring, size_t *environment, size_t *database)
{
    pthread_rwlock_rdlock(&keyring->lock);
    *environment = keyring->environment.count;
    *database = keyring->snapshot.count;
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
static const struct entry *find_token(const struct ring *ring, const unsigned char *digest,
                                      int64_t now)
{
    const struct entry *found = NULL;

    for (size_t i = 0; i < ring->count; i++) {
        if (sodium_memcmp(ring->entries[i]->bytes, digest, BEARER_DIGEST_BYTES) == 0 &&
            now < ring->entries[i]->expires)
            found = ring->entries[i];
    }
    return found;
}

bool keyring_find_token(struct keyring *keyring,
                        const unsigned char digest[static BEARER_DIGEST_BYTES], int64_t now,
                        char label[static KEYRING_LABEL_BYTES + 1], struct scope **scope,
                        bool *is_complete)
{
    const struct entry *environment, *read, *found;

    pthread_rwlock_rdlock(&keyring->lock);
    environment = find_token(&keyring->environment, digest, now);
    read = find_token(&keyring->snapshot, digest, now);
    found = read != NULL ? read : environment;
    if (found != NULL) {
        memcpy(label, found->name, found->length);
        label[found->length] = '\0';
    }
    *scope = found != NULL && environment == NULL ? scope_share(found->scope) : NULL;
    *is_complete = keyring->has_snapshot;
    pthread_rwlock_unlock(&keyring->lock);
    return found != NULL;
}
