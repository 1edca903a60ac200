#include "http/gzip.h"
#include "unit.h"

#include <stdlib.h>
#include <zlib.h>

enum { TEXT_BYTES = 300000, PART_BYTES = 7000 };

static void assert_all(const char *headers, bool is_accepted)
{
    char header[LISTED_BYTES];

    while (next_listed(&headers, header)) {
        if (gzip_is_accepted(header) != is_accepted)
            fail_msg("%s: %d", header, !is_accepted);
    }
}

static void accepts_what_names_gzip(void **state)
{
    (void)state;
    assert_all(
        "gzip|GZip|x-gzip|gzip, deflate, br, zstd|deflate,gzip|br;q=1.0, gzip;q=0.8, *;q=0.1|"
        "gzip;q=0.001|gzip;q=1|gzip ; q=0.5|*|*;q=0.1|identity;q=0, *|*;q=0, gzip|"
        ", ,gzip|\tgzip\t|gzip;x=0",
        true);
}

static void accepts_nothing_else(void **state)
{
    (void)state;
    assert_all(
        "|identity|deflate|br, zstd|gzip;q=0|gzip; q=0.0|gzip;Q=0.000|gzip;q=0, *|*, gzip;q=0|"
        "*;q=0|gzipped|zip|gzip2;q=1|g|x-gzi|, ,|;q=1|*x",
        false);
    assert_false(gzip_is_accepted(NULL));
}

/* Text that does not compress well, so that there is much of it. */
static void fill(char *text)
{
    uint32_t number = 1;

    for (size_t i = 0; i < TEXT_BYTES; i++) {
        number = number * 1103515245 + 12345;
        text[i] = (char)('a' + (number >> 16) % 23);
    }
}

static void what_it_compresses_in_parts_is_one_gzip_file(void **state)
{
    char *text = malloc(TEXT_BYTES);
    char *result = malloc(TEXT_BYTES + 1);
    struct buffer out = {0};
    struct gzip *gzip = gzip_new();
    z_stream stream = {0};

    (void)state;
    assert_true(text != NULL && result != NULL && gzip != NULL);
    fill(text);
    for (size_t at = 0; at < TEXT_BYTES; at += PART_BYTES) {
        size_t length = TEXT_BYTES - at < PART_BYTES ? TEXT_BYTES - at : PART_BYTES;

        gzip_add(gzip, &out, text + at, length, at + length == TEXT_BYTES);
    }
    gzip_free(gzip);
    assert_true(out.length < TEXT_BYTES);
    assert_int_equal(inflateInit2(&stream, 15 + 16), Z_OK);
    stream.next_in = (unsigned char *)out.text;
    stream.avail_in = (unsigned int)out.length;
    stream.next_out = (unsigned char *)result;
    stream.avail_out = TEXT_BYTES + 1;
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
    assert_int_equal(stream.total_out, TEXT_BYTES);
    assert_int_equal(stream.avail_in, 0);
    assert_memory_equal(result, text, TEXT_BYTES);
    inflateEnd(&stream);
    buffer_free(&out);
    free(text);
    free(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_names_gzip),
        cmocka_unit_test(accepts_nothing_else),
        cmocka_unit_test(what_it_compresses_in_parts_is_one_gzip_file),
    };

    return cmocka_run_group_tests_name("gzip", tests, NULL, NULL);
}
