#include "base/utf8.h"
#include "unit.h"

static bool valid(const char *text)
{
    return utf8_valid((const unsigned char *)text, strlen(text));
}

static void accepts_sequences_of_every_length(void **state)
{
    (void)state;
    assert_true(valid(""));
    assert_true(valid("plain ASCII, longer than eight bytes"));
    assert_true(valid("\xc2\x80\xdf\xbf"));
    assert_true(valid("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"));
    assert_true(valid("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
    assert_true(utf8_valid((const unsigned char *)"a\0b", 3));
}

static void refuses_what_rfc_3629_forbids(void **state)
{
    const char *texts = "\x80|\xbf|\xff|\xfe|"
                        "\xc0\x80|\xc1\xbf|\xe0\x80\x80|\xe0\x9f\xbf|\xf0\x80\x80\x80|"
                        "\xf0\x8f\xbf\xbf|"                  /* overlong */
                        "\xed\xa0\x80|\xed\xbf\xbf|"         /* surrogates */
                        "\xf4\x90\x80\x80|\xf5\x80\x80\x80|" /* above U+10FFFF */
                        "\xc2|\xe2\x82|\xf0\x9f\x98|\xc2x|\xe2\x82x|\xf0\x9f\x98x|" /* cut short */
                        "eight by\xc0\x80|1234567\xff";
    char text[LISTED_BYTES];
    (void)state;
    for (size_t i = 0; next_listed(&texts, text); i++) {
        if (valid(text))
            fail_msg("accepted: number %zu", i);
    }
}

static void does_not_read_past_the_length(void **state)
{
    (void)state;
    assert_false(utf8_valid((const unsigned char *)"\xe2\x82\xac", 2));
    assert_true(utf8_valid((const unsigned char *)"ab\xff", 2));
}

static void finds_control_characters(void **state)
{
    (void)state;
    assert_true(utf8_has_control((const unsigned char *)"a\0b", 3));
    assert_true(utf8_has_control((const unsigned char *)"a\x1f", 2));
    assert_true(utf8_has_control((const unsigned char *)"\x7f", 1));
    assert_true(utf8_has_control((const unsigned char *)"\xc2\x80", 2));
    assert_true(utf8_has_control((const unsigned char *)"\xc2\x9f", 2));
    assert_false(utf8_has_control((const unsigned char *)"\xc2\xa0 ~", 4));
    assert_false(utf8_has_control((const unsigned char *)"\xe2\x82\x80", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_sequences_of_every_length),
        cmocka_unit_test(refuses_what_rfc_3629_forbids),
        cmocka_unit_test(does_not_read_past_the_length),
        cmocka_unit_test(finds_control_characters),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
