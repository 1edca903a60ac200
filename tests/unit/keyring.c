#include "auth/keyring.h"
#include "unit.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct keyring *keyring;
static unsigned char keys[KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES];
static bool is_complete;
static struct scope *scope; /* of the token that was found last */

static int set_up(void **state)
{
    (void)state;
    keyring = keyring_new();
    return keyring == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    keyring_free(keyring);
    scope_release(scope);
    scope = NULL;
    return 0;
}

static size_t find(const char *source)
{
    return keyring_find_keys(keyring, source, strlen(source), keys, &is_complete);
}

static void make_key(char text[static SIGNATURE_KEY_TEXT_BYTES + 1])
{
    unsigned char public_key[SIGNATURE_KEY_BYTES];
    unsigned char secret[crypto_sign_SECRETKEYBYTES];

    crypto_sign_keypair(public_key, secret);
    signature_format_key(public_key, text);
}

static struct keyring_key *key_of(struct keyring_key *key, const char *source, unsigned char byte)
{
    memset(key->key, byte, sizeof(key->key));
    key->source_length = (unsigned char)strlen(source);
    memcpy(key->source, source, strlen(source));
    return key;
}

static void is_incomplete_before_the_first_read(void **state)
{
    (void)state;
    assert_int_equal(find("macbook"), 0);
    assert_false(is_complete);
    keyring_replace_keys(keyring, NULL, 0);
    assert_int_equal(find("macbook"), 0);
    assert_true(is_complete);
}

static void finds_all_keys_of_a_source_and_no_other(void **state)
{
    struct keyring_key *all = calloc(5, sizeof(*all));
    (void)state;
    key_of(&all[0], "b", 1);
    key_of(&all[1], "a", 2);
    key_of(&all[2], "b", 3);
    key_of(&all[3], "bb", 4);
    key_of(&all[4], "B", 5);
    keyring_replace_keys(keyring, all, 5);
    assert_int_equal(find("b"), 2);
    assert_int_equal(keys[0][0] + keys[1][0], 1 + 3);
    assert_int_equal(find("bb"), 1);
    assert_int_equal(keys[0][0], 4);
    assert_int_equal(find("bbb"), 0);
    assert_int_equal(find(""), 0);
}

static void replaces_keys_of_the_database_and_keeps_those_of_the_environment(void **state)
{
    char text[SIGNATURE_KEY_TEXT_BYTES + 1];
    char list[100];
    (void)state;
    make_key(text);
    snprintf(list, sizeof(list), "macbook:%s", text);
    assert_null(keyring_add_public_keys(keyring, list));
    assert_int_equal(find("macbook"), 1);
    assert_false(is_complete);
    keyring_replace_keys(keyring, key_of(calloc(1, sizeof(struct keyring_key)), "macbook", 9), 1);
    assert_int_equal(find("macbook"), 2);
    keyring_replace_keys(keyring, NULL, 0);
    assert_int_equal(find("macbook"), 1);
}

static void reads_a_list_of_public_keys(void **state)
{
    char a[SIGNATURE_KEY_TEXT_BYTES + 1];
    char b[SIGNATURE_KEY_TEXT_BYTES + 1];
    char list[300];
    (void)state;
    make_key(a);
    make_key(b);
    assert_null(keyring_add_public_keys(keyring, ""));
    snprintf(list, sizeof(list), " one : %s ,, my mac:%s,one:MCowBQYDK2VwAyEA%s,", a, b, b);
    assert_null(keyring_add_public_keys(keyring, list));
    assert_int_equal(find("one"), 2);
    assert_int_equal(find("my mac"), 1);
}

static void refuses_an_invalid_list(void **state)
{
    const char *lists =
        "macbook|macbook:|:|:@|@|m\u00fc:@|macbook:@,b|macbook:@,b:x|macbook:x|"
        "macbook:AAAA|macbook:@A|macbook:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=|"
        "macbook:AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=|"
        "macbook:xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA3o=|macbook:MCowBQYDK2VuAyEA@";
    char key[SIGNATURE_KEY_TEXT_BYTES + 1];
    char listed[LISTED_BYTES];
    char list[400];
    char name[257] = "";
    (void)state;
    make_key(key);
    while (next_listed(&lists, listed)) {
        size_t before = strcspn(listed, "@");
        bool has_key = listed[before] == '@';

        snprintf(list, sizeof(list), "%.*s%s%s", (int)before, listed, has_key ? key : "",
                 listed + before + has_key);
        if (keyring_add_public_keys(keyring, list) == NULL)
            fail_msg("accepted: %s", list);
    }
    snprintf(list, sizeof(list), "macbook:%.*s", SIGNATURE_KEY_TEXT_BYTES - 1, key);
    assert_non_null(keyring_add_public_keys(keyring, list));
    memset(name, 'x', 256);
    snprintf(list, sizeof(list), "%s:%s", name, key);
    assert_non_null(keyring_add_public_keys(keyring, list));
}

static void refuses_a_ninth_key_of_a_source(void **state)
{
    char text[SIGNATURE_KEY_TEXT_BYTES + 1];
    char list[100];
    (void)state;
    for (int i = 0; i < KEYRING_KEYS_PER_SOURCE; i++) {
        make_key(text);
        snprintf(list, sizeof(list), "macbook:%s", text);
        assert_null(keyring_add_public_keys(keyring, list));
    }
    assert_non_null(keyring_add_public_keys(keyring, list));
    assert_int_equal(find("macbook"), KEYRING_KEYS_PER_SOURCE);
}

static bool find_token(const char *token, int64_t now, char *label)
{
    unsigned char digest[BEARER_DIGEST_BYTES];

    crypto_hash_sha256(digest, (const unsigned char *)token, strlen(token));
    scope_release(scope);
    scope = NULL;
    return keyring_find_token(keyring, digest, now, label, &scope, &is_complete);
}

static void finds_a_token_until_it_expires(void **state)
{
    struct keyring_token *tokens = calloc(2, sizeof(*tokens));
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    crypto_hash_sha256(tokens[0].digest, (const unsigned char *)"one", 3);
    tokens[0].expires = 1000;
    memcpy(tokens[0].label, "first", 6);
    crypto_hash_sha256(tokens[1].digest, (const unsigned char *)"two", 3);
    tokens[1].expires = KEYRING_NEVER;
    memcpy(tokens[1].label, "second", 7);
    keyring_replace_tokens(keyring, tokens, 2);
    assert_true(find_token("one", 999, label));
    assert_string_equal(label, "first");
    assert_false(find_token("one", 1000, label));
    assert_true(find_token("two", INT64_MAX - 1, label));
    assert_string_equal(label, "second");
    assert_false(find_token("three", 0, label));
    assert_true(is_complete);
}

static struct scope *scope_of(const char *names)
{
    return scope_new((struct scope_array){(const unsigned char *)names, strlen(names)},
                     (struct scope_array){(const unsigned char *)"", 0});
}

static void gives_a_token_its_scope(void **state)
{
    struct keyring_token *tokens = calloc(2, sizeof(*tokens));
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    crypto_hash_sha256(tokens[0].digest, (const unsigned char *)"one", 3);
    tokens[0].expires = 1000;
    tokens[0].scope = scope_of("mac");
    crypto_hash_sha256(tokens[1].digest, (const unsigned char *)"two", 3);
    tokens[1].expires = KEYRING_NEVER;
    keyring_replace_tokens(keyring, tokens, 2);
    assert_true(find_token("two", 0, label));
    assert_null(scope);
    assert_true(find_token("one", 0, label));
    assert_memory_equal(scope->names.bytes, "mac", 3);
    /* A request keeps the scope that its token had. */
    keyring_replace_tokens(keyring, NULL, 0);
    assert_memory_equal(scope->names.bytes, "mac", 3);
    assert_false(find_token("one", 0, label));
    assert_null(scope);
}

static void never_limits_the_token_of_the_environment(void **state)
{
    struct keyring_token *token = calloc(1, sizeof(*token));
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    assert_null(keyring_add_token(keyring, "one"));
    crypto_hash_sha256(token->digest, (const unsigned char *)"one", 3);
    token->expires = KEYRING_NEVER;
    token->scope = scope_of("mac");
    keyring_replace_tokens(keyring, token, 1);
    assert_true(find_token("one", 0, label));
    assert_null(scope);
}

static void trims_the_token_of_the_environment(void **state)
{
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    assert_null(keyring_add_token(keyring, " s3cret\n"));
    assert_true(find_token("s3cret", 0, label));
    assert_false(is_complete);
    assert_false(find_token("s3cret ", 0, label));
}

static void never_matches_an_empty_token(void **state)
{
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    assert_null(keyring_add_token(keyring, ""));
    assert_null(keyring_add_token(keyring, "  "));
    assert_false(find_token("", 0, label));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(is_incomplete_before_the_first_read),
        TEST(finds_all_keys_of_a_source_and_no_other),
        TEST(replaces_keys_of_the_database_and_keeps_those_of_the_environment),
        TEST(reads_a_list_of_public_keys),
        TEST(refuses_an_invalid_list),
        TEST(refuses_a_ninth_key_of_a_source),
        TEST(finds_a_token_until_it_expires),
        TEST(gives_a_token_its_scope),
        TEST(never_limits_the_token_of_the_environment),
        TEST(trims_the_token_of_the_environment),
        TEST(never_matches_an_empty_token),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests_name("keyring", tests, NULL, NULL);
}
