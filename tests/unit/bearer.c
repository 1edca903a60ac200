#include "auth/bearer.h"
#include "unit.h"

#include <sodium.h>
#include <stdio.h>

static void assert_digest_of(const char *header, const char *token)
{
    unsigned char digest[BEARER_DIGEST_BYTES];
    unsigned char expected[BEARER_DIGEST_BYTES];

    assert_int_equal(bearer_digest(header, digest), ERROR_NONE);
    crypto_hash_sha256(expected, (const unsigned char *)token, strlen(token));
    assert_memory_equal(digest, expected, sizeof(digest));
}

static void hashes_the_characters_of_the_token(void **state)
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

static void accepts_the_scheme_in_any_case(void **state)
{
    (void)state;
    assert_digest_of("Bearer abc", "abc");
    assert_digest_of("bearer abc", "abc");
    assert_digest_of("BEARER abc", "abc");
    assert_digest_of("bEaReR abc", "abc");
    assert_digest_of("Bearer   abc", "abc");
}

static void takes_all_that_follows_the_scheme_for_the_token(void **state)
{
    const char *tokens = "a b|abc abc|abc, Bearer abc|\"abc\"|abc=|ABC|%|' OR ''='|null|\xff\xfe";
    char token[LISTED_BYTES];
    char header[7100];
    (void)state;
    while (next_listed(&tokens, token)) {
        snprintf(header, sizeof(header), "Bearer %s", token);
        assert_digest_of(header, token);
    }
    memset(header, 'x', sizeof(header));
    memcpy(header, "Bearer ", 7);
    header[7007] = '\0';
    assert_digest_of(header, header + 7);
}

static void tells_a_missing_header_from_an_invalid_one(void **state)
{
    const char *headers = "Bearer|Bearer |Bearer  |Bearerabc|Bearerx abc|Bearer\tabc|X Bearer abc|"
                          "Basic YTpi|abc| Bearer abc";
    char header[LISTED_BYTES];
    unsigned char digest[BEARER_DIGEST_BYTES];
    (void)state;
    assert_int_equal(bearer_digest(NULL, digest), ERROR_MISSING_TOKEN);
    assert_int_equal(bearer_digest("", digest), ERROR_MISSING_TOKEN);
    while (next_listed(&headers, header)) {
        if (bearer_digest(header, digest) != ERROR_INVALID_TOKEN)
            fail_msg("accepted: %s", header);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_the_characters_of_the_token),
        cmocka_unit_test(accepts_the_scheme_in_any_case),
        cmocka_unit_test(takes_all_that_follows_the_scheme_for_the_token),
        cmocka_unit_test(tells_a_missing_header_from_an_invalid_one),
    };

    return cmocka_run_group_tests_name("bearer", tests, NULL, NULL);
}
