#include "auth/signature.h"
#include "unit.h"

#include <sodium.h>
#include <stdio.h>

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
    /* The vector in hexadecimal, so that our base64 is checked too. */
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
    assert_false(signature_verify(signature, (const unsigned char *)" body", 5, keys, 1));
    assert_false(signature_verify(signature, (const unsigned char *)"body", 3, keys, 1));
    for (size_t i = 0; i < sizeof(changed); i++) {
        memcpy(changed, signature, sizeof(changed));
        changed[i] ^= 1;
        assert_false(signature_verify(changed, (const unsigned char *)"body", 4, keys, 1));
    }
}

/* Refuses the signature with text before it, within it (at an offset) or after it. */
static void assert_undecodable(const char *before, size_t at, const char *within,
                               const char *behind)
{
    unsigned char out[SIGNATURE_BYTES];
    char text[200];
    int length = snprintf(text, sizeof(text), "%s%.*s%s%s%s", before, (int)at, SIGNATURE, within,
                          SIGNATURE + at, behind);

    if (signature_decode(text, (size_t)length, out))
        fail_msg("accepted: %s", text);
}

static void decodes_strict_base64_of_64_bytes_only(void **state)
{
    unsigned char out[SIGNATURE_BYTES];
    char text[7000];
    (void)state;
    assert_true(signature_decode(SIGNATURE, strlen(SIGNATURE), out));
    assert_false(signature_decode(SIGNATURE, strlen(SIGNATURE) - 1, out)); /* half the padding */
    assert_false(signature_decode(SIGNATURE, strlen(SIGNATURE) - 2, out)); /* none */
    assert_false(signature_decode(SIGNATURE, strlen(SIGNATURE) - 4, out)); /* 63 bytes */
    assert_false(signature_decode(SIGNATURE, sizeof(SIGNATURE), out));     /* a NUL after it */
    assert_false(signature_decode("", 0, out));
    assert_false(signature_decode("=", 1, out));
    assert_false(signature_decode("x", 1, out));
    assert_undecodable("", 0, "", "=");
    assert_undecodable("", 0, "", "\n");
    assert_undecodable("", 0, "", "A");
    assert_undecodable("", 0, "", "AAAA");
    assert_undecodable(" ", 0, "", "");
    assert_undecodable("ed25519=", 0, "", "");
    assert_undecodable("", 40, " ", "");
    assert_undecodable("", 44, "\n", "");

    memcpy(text, SIGNATURE, sizeof(SIGNATURE));
    for (const char *other = "-_!"; *other != '\0'; other++) { /* base64url, and neither */
        text[3] = *other;
        assert_false(signature_decode(text, strlen(SIGNATURE), out));
    }
    memcpy(text, SIGNATURE, sizeof(SIGNATURE));
    text[strlen(SIGNATURE) - 3] = 'B'; /* non-zero unused bits */
    assert_false(signature_decode(text, strlen(SIGNATURE), out));
    sodium_bin2hex(text, sizeof(text), signature, sizeof(signature));
    assert_false(signature_decode(text, strlen(text), out));
    memset(text, 'A', sizeof(text));
    assert_false(signature_decode(text, 84, out));
    assert_false(signature_decode(text, 87, out));
    assert_false(signature_decode(text, 88, out)); /* 66 bytes */
    assert_false(signature_decode(text, sizeof(text), out));
    assert_false(signature_decode(PUBLIC_KEY, strlen(PUBLIC_KEY), out));
    text[87] = '=';
    assert_false(signature_decode(text, 88, out)); /* 65 bytes */
    text[86] = '=';
    assert_false(signature_decode(text, 87, out));
}

/* S must be below the order of the group (RFC 8032, 5.1.7). */
static void refuses_zeros_and_s_plus_the_order(void **state)
{
    static const unsigned char ORDER[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a,       0x63,
                                            0x12, 0x58, 0xd6, 0x9c, 0xf7,       0xa2,
                                            0xde, 0xf9, 0xde, 0x14, [31] = 0x10};
    unsigned char keys[1][SIGNATURE_KEY_BYTES];
    unsigned char changed[SIGNATURE_BYTES] = {0};
    (void)state;
    memcpy(keys[0], key, sizeof(key));
    assert_false(signature_verify(changed, (const unsigned char *)"body", 4, keys, 1));
    memcpy(changed, signature, sizeof(changed));
    sodium_add(changed + 32, ORDER, sizeof(ORDER));
    assert_false(signature_verify(changed, (const unsigned char *)"body", 4, keys, 1));
}

static void refuses_bytes_beyond_ascii(void **state)
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

static void assert_no_keys(const char *list)
{
    unsigned char out[SIGNATURE_KEY_BYTES];
    char text[LISTED_BYTES];

    while (next_listed(&list, text)) {
        if (signature_parse_key(text, strlen(text), out))
            fail_msg("accepted: %s", text);
    }
}

static void refuses_invalid_keys(void **state)
{
    const char *malformed =
        "|x|not a key|!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!|"
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zg==|" /* 31 bytes */
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0ZgwA|" /* 33 bytes */
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw9QBfD6EOJWpK3CqdNG368nJgszy7ElozAzVXxKvRmDA==|"
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c|" /* hexadecimal */
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw|"                      /* no padding */
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=A|PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
        "\nA|"
        " PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=|PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgx="
        "|"
        "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw=";
    const char *points = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=|" /* all zero */
                         "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=|" /* order 1 */
                         "7P///////////////////////////////////////38=|" /* order 2 */
                         "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA=|" /* order 4 */
                         "xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA3o=|" /* order 8 */
                         "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU=|" /* order 8 */
                         "7v///////////////////////////////////////38=|" /* not reduced */
                         "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="; /* not on the curve */
    const char *infos =
        "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zg==|"     /* 31 bytes */
        "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0ZgwA|"     /* 33 bytes */
        "MCowBQYDK2VwAyEA|"                                                 /* none */
        "MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=|"     /* all zero */
        "MCowBQYDK2VuAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=|"     /* X25519 */
        "MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; /* a private key */
    static char very_long[100001];
    unsigned char out[SIGNATURE_KEY_BYTES];
    (void)state;
    assert_no_keys(malformed);
    assert_no_keys(points);
    assert_no_keys(infos);
    memset(very_long, 'A', sizeof(very_long) - 1);
    assert_false(signature_parse_key(very_long, strlen(very_long), out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verifies_the_vector_of_rfc_8032),
        cmocka_unit_test(verifies_with_any_key_of_the_source),
        cmocka_unit_test(refuses_a_changed_body_or_signature),
        cmocka_unit_test(decodes_strict_base64_of_64_bytes_only),
        cmocka_unit_test(refuses_zeros_and_s_plus_the_order),
        cmocka_unit_test(refuses_bytes_beyond_ascii),
        cmocka_unit_test(parses_a_raw_key_and_its_spki),
        cmocka_unit_test(refuses_invalid_keys),
    };

    return cmocka_run_group_tests_name("signature", tests, set_up, NULL);
}
