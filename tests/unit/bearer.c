#include "auth/bearer.h"
#include "unit.h"

#include <sodium.h>
#include <string.h>

static void assert_digest_of(const char *header, const char *token)
{
    unsigned char digest[BEARER_DIGEST_BYTES];
    unsigned char expected[BEARER_DIGEST_BYTES];

    assert_int_equal(bearer_digest(header, digest), ERROR_NONE);
    crypto_hash_sha256(expected, (const unsigned char *)token, strlen(token));
    assert_memory_equal(digest, expected, sizeof(digest));
}

static void hashes_the_token_s_characters(void **state)
{
    /* FIPS 180-2, appendix B.1 */
    static const unsigned char ABC[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                        0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                        0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                        0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    unsigned char digest[BEARER_DIGEST_BYTES];
    (void)state;
    assert_int_equal(bearer_digest("Bearer abc", digest), ERROR_NONE);
    assert_memory_equal(digest, ABC, sizeof(ABC));
}

static void takes_the_scheme_in_any_case(void **state)
{
    (void)state;
    assert_digest_of("bearer abc", "abc");
    assert_digest_of("BEARER abc", "abc");
    assert_digest_of("Bearer   abc", "abc");
    assert_digest_of("Bearer a b", "a b");
}

static void tells_a_missing_header_from_a_bad_one(void **state)
{
    unsigned char digest[BEARER_DIGEST_BYTES];
    (void)state;
    assert_int_equal(bearer_digest(NULL, digest), ERROR_MISSING_TOKEN);
    assert_int_equal(bearer_digest("", digest), ERROR_MISSING_TOKEN);
    assert_int_equal(bearer_digest("Bearer", digest), ERROR_INVALID_TOKEN);
    assert_int_equal(bearer_digest("Bearer ", digest), ERROR_INVALID_TOKEN);
    assert_int_equal(bearer_digest("Bearerabc", digest), ERROR_INVALID_TOKEN);
    assert_int_equal(bearer_digest("Basic YTpi", digest), ERROR_INVALID_TOKEN);
    assert_int_equal(bearer_digest("abc", digest), ERROR_INVALID_TOKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_the_token_s_characters),
        cmocka_unit_test(takes_the_scheme_in_any_case),
        cmocka_unit_test(tells_a_missing_header_from_a_bad_one),
    };

    return cmocka_run_group_tests_name("bearer", tests, NULL, NULL);
}
