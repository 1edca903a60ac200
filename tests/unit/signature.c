#include "auth/signature.h"
#include "unit.h"

#include <sodium.h>
#include <string.h>

/* RFC 8032, section 7.1, test 2: one byte, 0x72. */
static const char PUBLIC_KEY[] = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
static const char SPKI_KEY[] = "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
static const char SIGNATURE[] = "kqAJqfDUyrhyDoILX2QlQKKye1QWUD+Ps3YiI+vbadoI"
                                "WsHkPhWZbkWPNhPQ8R2MOHsurrQwKu6wDSkWErsMAA==";

static unsigned char key[SIGNATURE_KEY_BYTES];
static unsigned char other_key[SIGNATURE_KEY_BYTES];
static unsigned char secret[crypto_sign_SECRETKEYBYTES];
static unsigned char signature[SIGNATURE_BYTES];

static int set_up(void **state)
{
    unsigned char other_secret[crypto_sign_SECRETKEYBYTES];
    (void)state;
    return sodium_init() < 0 || crypto_sign_keypair(key, secret) != 0 ||
           crypto_sign_keypair(other_key, other_secret) != 0 ||
           crypto_sign_detached(signature, NULL, (const unsigned char *)"body", 4, secret) != 0;
}

static void verifies_the_vector_of_rfc_8032(void **state)
{
    /* The vector's own hexadecimal, so that our base64 is checked as well. */
    static const char HEX[] = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                              "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    unsigned char keys[1][SIGNATURE_KEY_BYTES];
    unsigned char vector[SIGNATURE_BYTES];
    unsigned char decoded[SIGNATURE_BYTES];
    (void)state;
    assert_int_equal(sodium_hex2bin(vector, sizeof(vector), HEX, strlen(HEX), NULL, NULL, NULL), 0);
    assert_true(signature_decode(SIGNATURE, strlen(SIGNATURE), decoded));
    assert_memory_equal(decoded, vector, sizeof(vector));
    assert_true(signature_parse_key(PUBLIC_KEY, strlen(PUBLIC_KEY), keys[0]));
    assert_true(signature_verify(vector, (const unsigned char *)"\x72", 1, keys, 1));
    assert_false(signature_verify(vector, (const unsigned char *)"\x73", 1, keys, 1));
}

static void verifies_with_any_key_of_the_source(void **state)
{
    unsigned char keys[2][SIGNATURE_KEY_BYTES];
    (void)state;
    memcpy(keys[0], other_key, sizeof(other_key));
    memcpy(keys[1], key, sizeof(key));
    assert_true(signature_verify(signature, (const unsigned char *)"body", 4, keys, 2));
    assert_false(signature_verify(signature, (const unsigned char *)"body", 4, keys, 1));
    assert_false(signature_verify(signature, (const unsigned char *)"body", 4, keys, 0));
}

static void refuses_a_changed_body_or_signature(void **state)
{
    unsigned char keys[1][SIGNATURE_KEY_BYTES];
    unsigned char changed[SIGNATURE_BYTES];
    (void)state;
    memcpy(keys[0], key, sizeof(key));
    assert_false(signature_verify(signature, (const unsigned char *)"bodY", 4, keys, 1));
    assert_false(signature_verify(signature, (const unsigned char *)"body\n", 5, keys, 1));
    assert_false(signature_verify(signature, (const unsigned char *)"body", 3, keys, 1));
    for (size_t i = 0; i < sizeof(changed); i++) {
        memcpy(changed, signature, sizeof(changed));
        changed[i] ^= 1;
        assert_false(signature_verify(changed, (const unsigned char *)"body", 4, keys, 1));
    }
}

static void decodes_nothing_but_strict_base64_of_64_bytes(void **state)
{
    unsigned char out[SIGNATURE_BYTES];
    char text[sizeof(SIGNATURE) + 8];
    (void)state;
    assert_true(signature_decode(SIGNATURE, strlen(SIGNATURE), out));
    assert_false(signature_decode(SIGNATURE, strlen(SIGNATURE) - 1, out)); /* padding */
    assert_false(signature_decode(SIGNATURE, strlen(SIGNATURE) - 4, out)); /* 63 bytes */
    assert_false(signature_decode("", 0, out));
    snprintf(text, sizeof(text), "%s=", SIGNATURE);
    assert_false(signature_decode(text, strlen(text), out));
    snprintf(text, sizeof(text), "%s\n", SIGNATURE);
    assert_false(signature_decode(text, strlen(text), out));
    snprintf(text, sizeof(text), " %s", SIGNATURE);
    assert_false(signature_decode(text, strlen(text), out));
    assert_false(signature_decode(SIGNATURE, sizeof(SIGNATURE), out)); /* a NUL behind it */
    snprintf(text, sizeof(text), "%s", SIGNATURE);
    text[3] = '-'; /* base64url */
    assert_false(signature_decode(text, strlen(text), out));
    snprintf(text, sizeof(text), "%s", SIGNATURE);
    text[strlen(text) - 3] = 'B'; /* bits that belong to no byte */
    assert_false(signature_decode(text, strlen(text), out));
}

static void takes_no_byte_beyond_ascii_for_a_letter(void **state)
{
    unsigned char out[SIGNATURE_BYTES];
    char text[sizeof(SIGNATURE)];
    (void)state;
    for (int byte = 0x80; byte <= 0xff; byte++) {
        memcpy(text, SIGNATURE, sizeof(text));
        text[3] = (char)byte;
        if (signature_decode(text, strlen(text), out))
            fail_msg("accepted: a byte %x", (unsigned)byte);
    }
}

static void parses_a_raw_key_and_its_spki(void **state)
{
    unsigned char raw[SIGNATURE_KEY_BYTES];
    unsigned char spki[SIGNATURE_KEY_BYTES];
    char text[SIGNATURE_KEY_TEXT_BYTES + 1];
    (void)state;
    assert_true(signature_parse_key(PUBLIC_KEY, strlen(PUBLIC_KEY), raw));
    assert_true(signature_parse_key(SPKI_KEY, strlen(SPKI_KEY), spki));
    assert_memory_equal(raw, spki, sizeof(raw));
    signature_format_key(spki, text);
    assert_string_equal(text, PUBLIC_KEY);
}

static void refuses_keys_that_are_none(void **state)
{
    static const char *const TEXTS[] = {
        "",
        "not a key",
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zg==",                 /* 31 bytes */
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0ZgwA",                 /* 33 bytes */
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",                 /* all zero */
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",                 /* order 1 */
        "7P///////////////////////////////////////38=",                 /* order 2 */
        "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU=",                 /* order 8 */
        "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",                 /* not on the curve */
        "MCowBQYDK2VuAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=", /* X25519's SPKI */
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw",                  /* no padding */
    };
    unsigned char out[SIGNATURE_KEY_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof(TEXTS) / sizeof(TEXTS[0]); i++) {
        if (signature_parse_key(TEXTS[i], strlen(TEXTS[i]), out))
            fail_msg("accepted: %s", TEXTS[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verifies_the_vector_of_rfc_8032),
        cmocka_unit_test(verifies_with_any_key_of_the_source),
        cmocka_unit_test(refuses_a_changed_body_or_signature),
        cmocka_unit_test(decodes_nothing_but_strict_base64_of_64_bytes),
        cmocka_unit_test(takes_no_byte_beyond_ascii_for_a_letter),
        cmocka_unit_test(parses_a_raw_key_and_its_spki),
        cmocka_unit_test(refuses_keys_that_are_none),
    };

    return cmocka_run_group_tests_name("signature", tests, set_up, NULL);
}
