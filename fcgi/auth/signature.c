#include "auth/signature.h"

#include <sodium.h>
#include <string.h>

_Static_assert(SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519 signatures are 64 bytes");
_Static_assert(SIGNATURE_KEY_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519 keys are 32 bytes");

/* RFC 8410: a SubjectPublicKeyInfo of Ed25519 (OID 1.3.101.112), up to the key's 32 bytes. */
static const unsigned char SPKI_PREFIX[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                            0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

enum { SPKI_BYTES = sizeof(SPKI_PREFIX) + SIGNATURE_KEY_BYTES };

/*
 * Without b64_end and ignore, libsodium takes strict base64 and nothing behind it, but for one
 * thing: 1.0.18 reads every byte beyond ASCII as a slash.
 */
static bool decode(const char *text, size_t length, unsigned char *out, size_t size)
{
    size_t written;

    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] > 0x7f)
            return false;
    }
    return sodium_base642bin(out, size, text, length, NULL, &written, NULL,
                             sodium_base64_VARIANT_ORIGINAL) == 0 &&
           written == size;
}

bool signature_decode(const char *text, size_t length,
                      unsigned char signature[static SIGNATURE_BYTES])
{
    return decode(text, length, signature, SIGNATURE_BYTES);
}

bool signature_verify(const unsigned char signature[static SIGNATURE_BYTES],
                      const unsigned char *body, size_t length,
                      unsigned char (*keys)[SIGNATURE_KEY_BYTES], size_t key_count)
{
    for (size_t i = 0; i < key_count; i++) {
        if (crypto_sign_verify_detached(signature, body, length, keys[i]) == 0)
            return true;
    }
    return false;
}

bool signature_parse_key(const char *text, size_t length,
                         unsigned char key[static SIGNATURE_KEY_BYTES])
{
    unsigned char spki[SPKI_BYTES];

    if (decode(text, length, spki, SPKI_BYTES)) {
        if (memcmp(spki, SPKI_PREFIX, sizeof(SPKI_PREFIX)) != 0)
            return false;
        memcpy(key, spki + sizeof(SPKI_PREFIX), SIGNATURE_KEY_BYTES);
    } else if (!decode(text, length, key, SIGNATURE_KEY_BYTES)) {
        return false;
    }
    return crypto_core_ed25519_is_valid_point(key) == 1;
}

void signature_format_key(const unsigned char key[static SIGNATURE_KEY_BYTES],
                          char text[static SIGNATURE_KEY_TEXT_BYTES + 1])
{
    sodium_bin2base64(text, SIGNATURE_KEY_TEXT_BYTES + 1, key, SIGNATURE_KEY_BYTES,
                      sodium_base64_VARIANT_ORIGINAL);
}
