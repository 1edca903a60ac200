/* Credentials from the environment: VIBETEA_PUBLIC_KEYS and VIBETEA_SUBSCRIBER_TOKEN. */
#include "auth/keyring.h"
#include "fuzz.h"

#include <sodium.h>

static const char SPACE[] = " \t\r\n";

/* Removes leading and trailing white space. */
static char *trim(char *text)
{
    size_t length;

    text += strspn(text, SPACE);
    for (length = strlen(text); length > 0 && strchr(SPACE, text[length - 1]) != NULL; length--)
        text[length - 1] = '\0';
    return text;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

/* An item of an accepted list: its key must be found for its source. */
static void check_item(struct keyring *keyring, char *item)
{
    unsigned char found[KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES];
    unsigned char key[SIGNATURE_KEY_BYTES];
    char *colon = strchr(item, ':');
    const char *source, *text;
    size_t count;
    size_t same = 0;
    bool is_complete;

    require(colon != NULL, "an item has a colon");
    *colon = '\0';
    source = trim(item);
    text = trim(colon + 1);
    require(*source != '\0' && strlen(source) <= KEYRING_SOURCE_BYTES && is_printable(source),
            "a source is printable and not too long");
    require(signature_parse_key(text, strlen(text), key), "a key is valid");

    count = keyring_find_keys(keyring, source, strlen(source), found, &is_complete);
    require(count <= KEYRING_KEYS_PER_SOURCE, "a source has at most 8 keys");
    for (size_t i = 0; i < count; i++)
        same += memcmp(found[i], key, sizeof(key)) == 0;
    require(same > 0, "an accepted key is found");
    require(!is_complete, "no source is unknown before the database was read");
}

/* Tests a text as a list of keys, and modifies it. */
static void check_keys(struct keyring *keyring, char *list)
{
    const char *problem = keyring_add_public_keys(keyring, list);
    char *rest = list;
    char *item;

    if (problem != NULL) {
        require(strlen(problem) > 10, "an error is a sentence");
        return;
    }
    while ((item = strsep(&rest, ",")) != NULL) {
        item = trim(item);
        if (*item != '\0')
            check_item(keyring, item);
    }
}

static bool is_token(struct keyring *keyring, const char *text)
{
    unsigned char digest[BEARER_DIGEST_BYTES];
    char label[KEYRING_LABEL_BYTES + 1];
    bool is_complete;
    bool is_found;
    struct scope *scope;

    crypto_hash_sha256(digest, (const unsigned char *)text, strlen(text));
    is_found = keyring_find_token(keyring, digest, 0, label, &scope, &is_complete);
    require(scope == NULL, "a token of the environment sees all sources");
    require(!is_found || strcmp(label, "environment") == 0, "a token has the label environment");
    return is_found;
}

/* Tests a text as a token, and trims it. */
static void check_token(struct keyring *keyring, char *text)
{
    const char *problem = keyring_add_token(keyring, text);
    const char *token = trim(text);

    require(problem == NULL || strlen(problem) > 10, "an error is a sentence");
    require(is_token(keyring, token) == (problem == NULL && *token != '\0'),
            "a token is valid if it was accepted and is not empty");
    require(!is_token(keyring, ""), "an empty token is never valid");
    require(problem != NULL || is_printable(token), "a token is printable");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keyring *keyring = keyring_new();
    char *list = copy_text(data, size);
    char *token = copy_text(data, size);

    require(keyring != NULL, "memory can be allocated");
    check_keys(keyring, list);
    check_token(keyring, token);
    free(token);
    free(list);
    keyring_free(keyring);
    return 0;
}
