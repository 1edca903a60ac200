#include "auth/keyring.h"
#include "unit.h"

#include <pthread.h>
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

/* Adds a key of so many equal bytes to a draft. */
static void draft_key(struct keyring_draft *draft, const char *source, unsigned char byte)
{
    unsigned char key[SIGNATURE_KEY_BYTES];

    memset(key, byte, sizeof(key));
    assert_true(keyring_draft_key(draft, source, strlen(source), key));
}

static void replace(struct keyring_draft *draft)
{
    assert_true(keyring_replace(keyring, draft));
    keyring_draft_free(draft);
}

static void change(struct keyring_draft *draft)
{
    assert_true(keyring_change(keyring, draft));
    keyring_draft_free(draft);
}

static void is_incomplete_before_the_first_read(void **state)
{
    (void)state;
    assert_int_equal(find("macbook"), 0);
    assert_false(is_complete);
    replace(keyring_draft_new());
    assert_int_equal(find("macbook"), 0);
    assert_true(is_complete);
}

static void finds_all_keys_of_a_source_and_no_other(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    (void)state;
    draft_key(draft, "b", 1);
    draft_key(draft, "a", 2);
    draft_key(draft, "b", 3);
    draft_key(draft, "bb", 4);
    draft_key(draft, "B", 5);
    replace(draft);
    assert_int_equal(find("b"), 2);
    assert_int_equal(keys[0][0] + keys[1][0], 1 + 3);
    assert_int_equal(find("bb"), 1);
    assert_int_equal(keys[0][0], 4);
    assert_int_equal(find("bbb"), 0);
    assert_int_equal(find(""), 0);
}

static void replaces_keys_of_the_database_and_keeps_those_of_the_environment(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    char text[SIGNATURE_KEY_TEXT_BYTES + 1];
    char list[100];
    (void)state;
    make_key(text);
    snprintf(list, sizeof(list), "macbook:%s", text);
    assert_null(keyring_add_public_keys(keyring, list));
    assert_int_equal(find("macbook"), 1);
    assert_false(is_complete);
    draft_key(draft, "macbook", 9);
    replace(draft);
    assert_int_equal(find("macbook"), 2);
    replace(keyring_draft_new());
    assert_int_equal(find("macbook"), 1);
}

static void changes_the_keys_of_some_sources_and_keeps_the_others(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    size_t environment, database;
    (void)state;
    draft_key(draft, "b", 1);
    draft_key(draft, "b", 2);
    draft_key(draft, "c", 3);
    draft_key(draft, "d", 4);
    replace(draft);

    draft = keyring_draft_new();
    draft_key(draft, "e", 5);
    draft_key(draft, "b", 6);
    assert_true(keyring_draft_none(draft, "c", 1));
    draft_key(draft, "a", 7);
    draft_key(draft, "e", 8);
    assert_true(keyring_draft_none(draft, "bb", 2));
    change(draft);
    assert_int_equal(find("a"), 1);
    assert_int_equal(keys[0][0], 7);
    assert_int_equal(find("b"), 1);
    assert_int_equal(keys[0][0], 6);
    assert_int_equal(find("bb"), 0);
    assert_int_equal(find("c"), 0);
    assert_int_equal(find("d"), 1);
    assert_int_equal(keys[0][0], 4);
    assert_int_equal(find("e"), 2);
    keyring_count(keyring, &environment, &database);
    assert_int_equal(database, 5);

    change(keyring_draft_new());
    keyring_count(keyring, &environment, &database);
    assert_int_equal(database, 5);
}

static void never_removes_keys_of_the_environment(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    char text[SIGNATURE_KEY_TEXT_BYTES + 1];
    char list[100];
    (void)state;
    make_key(text);
    snprintf(list, sizeof(list), "macbook:%s", text);
    assert_null(keyring_add_public_keys(keyring, list));
    assert_true(keyring_draft_none(draft, "macbook", 7));
    replace(draft);
    draft = keyring_draft_new();
    assert_true(keyring_draft_none(draft, "macbook", 7));
    change(draft);
    assert_int_equal(find("macbook"), 1);
}

static void refuses_a_name_of_an_impossible_length(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    unsigned char bytes[SIGNATURE_KEY_BYTES] = {0};
    char name[KEYRING_SOURCE_BYTES + 1];
    (void)state;
    memset(name, 'x', sizeof(name));
    assert_false(keyring_draft_key(draft, name, 0, bytes));
    assert_true(keyring_draft_key(draft, name, KEYRING_SOURCE_BYTES, bytes));
    assert_false(keyring_draft_key(draft, name, KEYRING_SOURCE_BYTES + 1, bytes));
    assert_false(keyring_draft_token(draft, name, 0, bytes, 0, NULL));
    assert_false(keyring_draft_token(draft, name, KEYRING_LABEL_BYTES + 1, bytes, 0, NULL));
    assert_false(keyring_draft_none(draft, name, 0));
    assert_false(keyring_draft_none(draft, name, KEYRING_SOURCE_BYTES + 1));
    keyring_draft_free(draft);
}

/* Names of different lengths, some of them the beginning of another. */
static size_t name_of(unsigned int number, char name[static 16])
{
    return (size_t)snprintf(name, 16, number % 3 == 0 ? "m%u" : "monitor-%u", number);
}

/* Many changes, beside a list of how many keys each source should have, and of what. */
static void is_after_many_changes_what_a_whole_read_would_be(void **state)
{
    enum { SOURCES = 300, CHANGES = 400 };
    unsigned char expected[SOURCES] = {0}; /* the byte of its keys; 0 for none */
    unsigned char counts[SOURCES] = {0};
    char name[16];
    (void)state;
    replace(keyring_draft_new());
    for (unsigned int i = 0; i < CHANGES; i++) {
        struct keyring_draft *draft = keyring_draft_new();
        unsigned int first = randombytes_uniform(SOURCES);

        for (unsigned int n = randombytes_uniform(20); n > 0; n--) {
            unsigned int number = (first + 7 * n) % SOURCES;
            size_t length = name_of(number, name);

            counts[number] = (unsigned char)randombytes_uniform(KEYRING_KEYS_PER_SOURCE + 1);
            expected[number] = (unsigned char)(1 + randombytes_uniform(255));
            if (counts[number] == 0)
                assert_true(keyring_draft_none(draft, name, length));
            for (unsigned int key = 0; key < counts[number]; key++)
                draft_key(draft, name, expected[number]);
        }
        change(draft);
    }
    for (unsigned int number = 0; number < SOURCES; number++) {
        name_of(number, name);
        assert_int_equal(find(name), counts[number]);
        for (unsigned int key = 0; key < counts[number]; key++)
            assert_int_equal(keys[key][0], expected[number]);
    }
}

/* Looks a source up until its keys are those of byte 255; they must always be two equal ones. */
static void *look_up(void *arg)
{
    unsigned char found[KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES];
    bool *is_mixed = arg;
    bool is_read;

    do {
        if (keyring_find_keys(keyring, "b", 1, found, &is_read) != 2 || found[0][0] != found[1][0])
            *is_mixed = true;
    } while (!*is_mixed && found[0][0] != 255);
    return NULL;
}

static void shows_a_change_whole_or_not_at_all(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    bool is_mixed[2] = {false, false};
    pthread_t threads[2];
    (void)state;
    draft_key(draft, "a", 1);
    draft_key(draft, "b", 1);
    draft_key(draft, "b", 1);
    replace(draft);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_up, &is_mixed[i]), 0);
    for (int i = 2; i < 256; i++) {
        draft = keyring_draft_new();
        draft_key(draft, "b", (unsigned char)i);
        draft_key(draft, "b", (unsigned char)i);
        if (i % 2 == 0)
            draft_key(draft, "a", (unsigned char)i);
        if (i % 7 == 0)
            replace(draft);
        else
            change(draft);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_false(is_mixed[i]);
    }
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

static struct scope *scope_of(const char *names)
{
    return scope_new((struct scope_array){(const unsigned char *)names, strlen(names)},
                     (struct scope_array){(const unsigned char *)"", 0});
}

static void draft_token(struct keyring_draft *draft, const char *label, const char *token,
                        int64_t expires, struct scope *limits)
{
    unsigned char digest[BEARER_DIGEST_BYTES];

    crypto_hash_sha256(digest, (const unsigned char *)token, strlen(token));
    assert_true(keyring_draft_token(draft, label, strlen(label), digest, expires, limits));
}

static void finds_a_token_until_it_expires(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    draft_token(draft, "first", "one", 1000, NULL);
    draft_token(draft, "second", "two", KEYRING_NEVER, NULL);
    replace(draft);
    assert_true(find_token("one", 999, label));
    assert_string_equal(label, "first");
    assert_false(find_token("one", 1000, label));
    assert_true(find_token("two", INT64_MAX - 1, label));
    assert_string_equal(label, "second");
    assert_false(find_token("three", 0, label));
    assert_true(is_complete);
}

static void gives_a_token_its_scope(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    draft_token(draft, "first", "one", 1000, scope_of("mac"));
    draft_token(draft, "second", "two", KEYRING_NEVER, NULL);
    replace(draft);
    assert_true(find_token("two", 0, label));
    assert_null(scope);
    assert_true(find_token("one", 0, label));
    assert_memory_equal(scope->names.bytes, "mac", 3);
    /* A request keeps the scope that its token had. */
    replace(keyring_draft_new());
    assert_memory_equal(scope->names.bytes, "mac", 3);
    assert_false(find_token("one", 0, label));
    assert_null(scope);
}

static void changes_some_tokens_and_keeps_the_others(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    draft_token(draft, "first", "one", KEYRING_NEVER, scope_of("mac"));
    draft_token(draft, "second", "two", KEYRING_NEVER, NULL);
    draft_token(draft, "third", "three", KEYRING_NEVER, NULL);
    replace(draft);
    assert_true(find_token("one", 0, label));

    draft = keyring_draft_new();
    draft_token(draft, "first", "one", KEYRING_NEVER, scope_of("lab"));
    assert_true(keyring_draft_none(draft, "second", 6));
    draft_token(draft, "third", "four", 1000, NULL);
    change(draft);
    assert_memory_equal(scope->names.bytes, "mac", 3);
    assert_true(find_token("one", 0, label));
    assert_memory_equal(scope->names.bytes, "lab", 3);
    assert_false(find_token("two", 0, label));
    assert_false(find_token("three", 0, label));
    assert_true(find_token("four", 999, label));
    assert_string_equal(label, "third");
    assert_false(find_token("four", 1000, label));
}

static void never_limits_the_token_of_the_environment(void **state)
{
    struct keyring_draft *draft = keyring_draft_new();
    char label[KEYRING_LABEL_BYTES + 1];
    (void)state;
    assert_null(keyring_add_token(keyring, "one"));
    draft_token(draft, "first", "one", KEYRING_NEVER, scope_of("mac"));
    replace(draft);
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
        TEST(changes_the_keys_of_some_sources_and_keeps_the_others),
        TEST(never_removes_keys_of_the_environment),
        TEST(refuses_a_name_of_an_impossible_length),
        TEST(is_after_many_changes_what_a_whole_read_would_be),
        TEST(shows_a_change_whole_or_not_at_all),
        TEST(reads_a_list_of_public_keys),
        TEST(refuses_an_invalid_list),
        TEST(refuses_a_ninth_key_of_a_source),
        TEST(finds_a_token_until_it_expires),
        TEST(gives_a_token_its_scope),
        TEST(changes_some_tokens_and_keeps_the_others),
        TEST(never_limits_the_token_of_the_environment),
        TEST(trims_the_token_of_the_environment),
        TEST(never_matches_an_empty_token),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests_name("keyring", tests, NULL, NULL);
}
