/* X-Signature, and public keys as they are registered. */
#include "auth/signature.h"
#include "fuzz.h"

#include <sodium.h>

enum { ENCODED_BYTES = sodium_base64_ENCODED_LEN(SIGNATURE_BYTES, sodium_base64_VARIANT_ORIGINAL) };

/* Whether a text is exactly the base64 of these bytes. */
static bool is_encoded(const char *text, size_t length, const unsigned char *bytes, size_t count)
{
    char encoded[ENCODED_BYTES];

    sodium_bin2base64(encoded, sizeof(encoded), bytes, count, sodium_base64_VARIANT_ORIGINAL);
    return strlen(encoded) == length && memcmp(encoded, text, length) == 0;
}

static void check_key(const char *text, size_t length)
{
    static const unsigned char SPKI[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                         0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
    unsigned char key[SIGNATURE_KEY_BYTES];
    unsigned char again[SIGNATURE_KEY_BYTES];
    unsigned char spki[sizeof(SPKI) + sizeof(key)];
    char formatted[SIGNATURE_KEY_TEXT_BYTES + 1];

    if (!signature_parse_key(text, length, key))
        return;
    memcpy(spki, SPKI, sizeof(SPKI));
    memcpy(spki + sizeof(SPKI), key, sizeof(key));
    require(is_encoded(text, length, key, sizeof(key)) ||
                is_encoded(text, length, spki, sizeof(spki)),
            "a key's text is the base64 of its bytes or of its SPKI form");
    require(crypto_core_ed25519_is_valid_point(key) == 1, "a key is a point of the main subgroup");

    signature_format_key(key, formatted);
    require(signature_parse_key(formatted, strlen(formatted), again) &&
                memcmp(key, again, sizeof(key)) == 0,
            "a formatted key parses as the same key");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = copy_bytes(data, size);
    unsigned char signature[SIGNATURE_BYTES];

    if (signature_decode(text, size, signature))
        require(is_encoded(text, size, signature, sizeof(signature)),
                "a signature's text is the base64 of its bytes");
    check_key(text, size);
    free(text);
    return 0;
}
