/* What counts as JSON in a batch: RFC 8259, as far as jsonb can store it. */
#include "judge.h"

/* Text that may hold a NUL. */
struct text {
    const char *text;
    size_t length;
};

#define TEXT(literal)                                                                              \
    (struct text)                                                                                  \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char event[2 * BATCH_EVENT_BYTES];

/* Invalid JSON may be an error of the body or of the part it is in: the contract leaves it open. */
static void assert_invalid_request_or(enum error other, const char *text)
{
    enum error error = judge_event(text, strlen(text));

    if (error != ERROR_INVALID_REQUEST && error != other)
        fail_msg("%.200s: %d", text, (int)error);
}

static void assert_refused(const char *text)
{
    assert_invalid_request_or(ERROR_INVALID_PAYLOAD, text);
}

/* An event with a value in place of its @. */
static const char *with(const char *place, const char *value)
{
    size_t before = strcspn(place, "@");

    snprintf(event, sizeof(event), "%.*s%s%s", (int)before, place, value, place + before + 1);
    return event;
}

static void refuses_a_body_that_is_not_an_array(void **state)
{
    const char *bodies =
        "null|true|1|\"[]\"|{}|{\"events\":[]}|[1]]|[]]|[],|[] "
        "[]|[]x|[|]|[{|[{}|[}|[,]|[{},]|[,{}]|"
        "[{}{}]|[{} {}]|[{}:{}]|| "
        "|\n|x|nul|'[]'|[//x\n]|[/**/]|[{}]//x|[#\n]|<xml/>|a=b|[{]}|[(1)]|"
        "[1 2]|[\"|[\"x|[\"\\|\v[]|\f[]|[\v]|\xc2\xa0[]|[\xe2\x80\x83]|[\\u005b]|[;]|[{};]|"
        "[{}]]|[{}],|[{}{}|[{}] {}|[{}, {} {}]|[{\"a\":\"b]|[{\"a\":\"b\\\"]|[{\"a\" "
        "1}]|[{\"a\":}]|"
        "[{\"a\":1,}]|[{a:1}]|[[}]]|[foo]|[{\"a\":tru}]|[{/**/}]|[{\"a\":1}//\n]|[{\"a\":'b'}]|"
        "[\"\\x\"]|[\"\\u12\"]|[.5]|[1e]";
    char body[LISTED_BYTES];
    (void)state;
    while (next_listed(&bodies, body))
        assert_judged(body, ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[]\0", 3), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[{\0}]", 5), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[1\0]", 4), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[{}]\0", 5), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("\0[{}]", 5), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("\0[]", 3), ERROR_INVALID_REQUEST);
    assert_int_equal(judge("[]\0junk", 7), ERROR_INVALID_REQUEST);
}

static void refuses_a_broken_word_in_place_of_an_event(void **state)
{
    const char *words = "nul|tru|True|NULL|undefined|-|+1|.5|5.|1e|1e+|0x1|01|1_0|--1|1.e5|"
                        "Infinity|NaN|-Infinity";
    char word[LISTED_BYTES];
    (void)state;
    while (next_listed(&words, word))
        assert_invalid_request_or(ERROR_INVALID_EVENT, word);
}

static void refuses_5_mib_of_one_thing(void **state)
{
    const char *things = "[|{\"a\":|\"| |\\|9";
    char thing[LISTED_BYTES];
    char *body = calloc(1, BATCH_BODY_BYTES);
    (void)state;
    assert_int_equal(judge(body, BATCH_BODY_BYTES), ERROR_INVALID_REQUEST);
    while (next_listed(&things, thing)) {
        for (size_t at = 0; at < BATCH_BODY_BYTES; at++)
            body[at] = thing[at % strlen(thing)];
        assert_int_equal(judge(body, BATCH_BODY_BYTES), ERROR_INVALID_REQUEST);
    }
    free(body);
}

static void refuses_5_mib_of_empty_events(void **state)
{
    char *body = calloc(1, BATCH_BODY_BYTES + 1);
    size_t length = 1;
    (void)state;
    body[0] = '[';
    for (; length + 3 <= BATCH_BODY_BYTES; length += 3)
        memcpy(body + length, "{},", 3);
    assert_int_equal(judge(body, length), ERROR_INVALID_REQUEST);
    body[length - 1] = ']';
    assert_int_equal(judge(body, length), ERROR_BATCH_TOO_LARGE);
    free(body);
}

static void refuses_every_encoding_but_utf_8(void **state)
{
    const struct text bodies[] = {
        TEXT("\xef\xbb\xbf[]"),
        TEXT("\xef\xbb\xbf[{}]"),
        TEXT("\xef\xbb\xbf"),
        TEXT("\xff\xfe[\0]\0"),
        TEXT("\xfe\xff\0[\0]"),
        TEXT("[\0]\0"),
        TEXT("\xff\xfe\0\0[\0\0\0]\0\0\0"),
        TEXT("\xff"),
        TEXT("[\xff]"),
        TEXT("[]\xff"),
        TEXT("[]\xc0\x80"),
        TEXT("\x80[]"),
        TEXT("[]\xe2\x82"),
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bodies); i++)
        assert_int_equal(judge(bodies[i].text, bodies[i].length), ERROR_INVALID_REQUEST);
}

static void refuses_invalid_utf_8_in_any_place(void **state)
{
    static const char *const PLACES[] = {
        EVENT("evt_1", "{\"note\":\"@\"}"),   EVENT("evt_1", "{\"@\":1}"),  EVENT("evt_@", "{}"),
        EVENT("evt_1", "{},\"other\":\"@\""), EVENT("evt_1", "{},\"@\":1"),
    };
    (void)state;
    for (size_t place = 0; place < COUNT(PLACES); place++) {
        /* Continuation and lead bytes alone, overlong forms, surrogates, above U+10FFFF, sequences
         * of five and six bytes, one cut short, and Latin-1. */
        const char *sequences =
            "\x80|\xc3|\xff|\xfe|\xc0\xaf|\xc0\x80|\xe0\x80\xaf|\xf0\x80\x80\xaf|"
            "\xed\xa0\x80|\xed\xbf\xbf|\xed\xa0\xbd\xed\xb8\x80|"
            "\xf4\x90\x80\x80|\xf5\x80\x80\x80|\xf8\x88\x80\x80\x80|"
            "\xfc\x84\x80\x80\x80\x80|\xf0\x9f\x98|\xe9";
        char sequence[LISTED_BYTES];

        while (next_listed(&sequences, sequence))
            assert_event(with(PLACES[place], sequence), ERROR_INVALID_REQUEST);
    }
}

static void refuses_characters_that_jsonb_cannot_store(void **state)
{
    static const struct {
        const char *text;
        enum error error;
    } PLACES[] = {
        {EVENT("evt_1", "{\"note\":\"@\"}"), ERROR_INVALID_PAYLOAD},
        {EVENT("evt_1", "{\"@\":1}"), ERROR_INVALID_PAYLOAD},
        {EVENT("evt_1", "{\"a\":[{\"b\":[\"@\"]}]}"), ERROR_INVALID_PAYLOAD},
        {"{\"id\":\"evt_1\",\"source\":\"macbook@\"}", ERROR_SOURCE_MISMATCH},
        {"{\"id\":\"evt_1\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z@\"}",
         ERROR_INVALID_TIMESTAMP},
        {"{\"id\":\"evt_1\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","
         "\"type\":\"tool@\"}",
         ERROR_INVALID_EVENT_TYPE},
    };
    /* U+0000, halves of surrogate pairs, and pairs the wrong way round. */
    const char *escapes = "\\u0000|a\\u0000b|\\ud800|\\udc00|x\\udbff|\\ud800\\ud800|"
                          "\\ude00\\ud83d|\\ud83dx|\\ud83d\\n|\\ud83d\\ue000";
    char escape[LISTED_BYTES];
    (void)state;
    while (next_listed(&escapes, escape)) {
        for (size_t i = 0; i < COUNT(PLACES); i++)
            assert_event(with(PLACES[i].text, escape), PLACES[i].error);
        assert_refused(with(EVENT("evt_1", "{},\"other\":\"@\""), escape));
        assert_refused(with(EVENT("evt_1", "{},\"@\":1"), escape));
        assert_refused(with(EVENT("evt_1", "{},\"other\":{\"@\":1}"), escape));
        /* In an id, the rule about control characters comes first. */
        if (strstr(escape, "\\u0000") != NULL || strstr(escape, "\\n") != NULL)
            assert_event(with(EVENT("evt_@", "{}"), escape), ERROR_INVALID_EVENT_ID);
        else
            assert_refused(with(EVENT("evt_@", "{}"), escape));
    }
}

static void does_not_end_a_name_at_a_nul(void **state)
{
    static const char *const EVENTS[] = {
        EVENT("evt_1", "{},\"id\\u0000\":\"evt_2\""),
        EVENT("evt_1", "{},\"source\\u0000\":\"other\""),
        EVENT("evt_1", "{},\"eventType\\u0000\":\"error\""),
        EVENT("evt_1", "{},\"payload\\u0000\":{\"a\":1}"),
        "{\"id\":\"evt_1\",\"source\\u0000x\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","
        "\"type\":\"tool\",\"payload\":{}}",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(EVENTS); i++)
        assert_int_not_equal(judge_event(EVENTS[i], strlen(EVENTS[i])), ERROR_NONE);
}

static void refuses_what_strict_json_does_not_allow(void **state)
{
    const char *values =
        "NaN|Infinity|-Infinity|nan|inf|01|-01|00|+1|.5|-.5|5.|1.|1.e2|1.e5|1e|1e+|0x10|1f|--1|- 1|"
        "1 "
        "000|True|None|nul|nulll|undefined|'x'|`x`|\"\t\"|\"\n\"|\"\r\n\"|\"\x1f\"|\"\\x\"|\"\\'\"|"
        "\"\\u12\"|\"\\u12g4\"|\"\\U0041\"|\"\\0\"|\"\\\n\"|[1,]|[,1]|[1 2]|[1|{\"a\"}|{\"a\":}|"
        "{\"a\":1,}|{\"a\" 1}|{a:1}|{'a':1}|{1:1}|{null:1}|/*x*/1|1//x\n|1#x\n|()|1;|\"x|\\||"
        "{\"\t\":1}|{,}|{\"a\":1 \"b\":2}|[1}|{\"a\":1]|\xc2\xa0null|\xef\xbb\xbfnull";
    const char *not_strict = "01|-01|00|1.|-.5|1.e5";
    const char *not_numbers = "0x10|1e+|--1|.5|+1";
    char value[LISTED_BYTES];
    (void)state;
    while (next_listed(&values, value)) {
        assert_refused(with(EVENT("evt_1", "{\"v\":@}"), value));
        assert_refused(with(EVENT("evt_1", "{},\"other\":@"), value));
    }
    assert_event(EVENT("evt_1", "{\"v\":NaN}"), ERROR_INVALID_PAYLOAD);
    while (next_listed(&not_strict, value))
        assert_event(with(EVENT("evt_1", "{\"v\":@}"), value), ERROR_INVALID_PAYLOAD);
    while (next_listed(&not_numbers, value))
        assert_event(with(EVENT("evt_1", "{\"v\":@}"), value), ERROR_INVALID_REQUEST);
    assert_event(EVENT("evt_1", "{\"v\":[1.5e300,true,\"\\ud83d\\ude00\"]}"), ERROR_NONE);
    assert_event(EVENT("evt_1", "{\"v\":\"\n\"}"), ERROR_INVALID_PAYLOAD);
    assert_event(EVENT("evt_1", "{\"\x01\":1}"), ERROR_INVALID_PAYLOAD);
}

static void refuses_a_raw_nul(void **state)
{
    const struct text bodies[] = {
        TEXT("[" EVENT("evt_1", "{\"v\":1\0}") "]"),
        TEXT("[" EVENT("evt_1", "{},\"other\":\"\0\"") "]"),
        TEXT("[" EVENT("evt_1", "{},\"other\":1\0") "]"),
    };
    const struct text in_a_string = TEXT("[" EVENT("evt_1", "{\"v\":\"a\0b\"}") "]");
    const struct text in_an_id = TEXT("[" EVENT("\\u0065vt_\0", "{}") "]");
    (void)state;
    for (size_t i = 0; i < COUNT(bodies); i++)
        assert_int_not_equal(judge(bodies[i].text, bodies[i].length), ERROR_NONE);
    assert_int_equal(judge(in_a_string.text, in_a_string.length), ERROR_INVALID_PAYLOAD);
    assert_int_equal(judge(in_an_id.text, in_an_id.length), ERROR_INVALID_PAYLOAD);
}

static void assert_number(const char *number, enum error expected)
{
    assert_event(with(EVENT("evt_1", "{\"n\":[@]}"), number), expected);
}

static void assert_numbers(const char *list, enum error expected)
{
    char number[LISTED_BYTES];

    while (next_listed(&list, number))
        assert_number(number, expected);
}

/* A number in which a digit is repeated. */
static const char *long_number(const char *start, char digit, size_t count, const char *end)
{
    static char number[BATCH_EVENT_BYTES];
    char *at = stpcpy(number, start);

    memset(at, digit, count);
    stpcpy(at + count, end);
    return number;
}

static void refuses_numbers_beyond_a_double(void **state)
{
    (void)state;
    assert_numbers("1e999|-1e999|1e-999|1e309|1.8e308|-1.8e308|1e-400|1e-20000|1e20000|1e999999|"
                   "-1e-999999|1e999999999999999999999|1e-999999999999999999999|1E+400|1e131072|"
                   "1e131071|123456789e400",
                   ERROR_INVALID_PAYLOAD);
    assert_number(long_number("", '9', 400, ""), ERROR_INVALID_PAYLOAD);
    assert_number(long_number("-", '9', 400, ""), ERROR_INVALID_PAYLOAD);
    assert_number(long_number("1", '0', 309, ""), ERROR_INVALID_PAYLOAD);
    assert_number(long_number("0.", '0', 400, "1"), ERROR_INVALID_PAYLOAD);
    assert_number(long_number("", '1', 60000, ""), ERROR_INVALID_PAYLOAD);
}

static void accepts_numbers_that_a_double_holds(void **state)
{
    (void)state;
    assert_numbers("0|-0|0.0|0e0|0e5|0e999999|0E+999999|-0e400|0.000e400|0e-999|1e308|1.5e300|"
                   "1.7976931348623157e308|-1.7976931348623157e308|5e-324|2.5E-300|-2.5e3|1.10|"
                   "18446744073709551616",
                   ERROR_NONE);
    assert_number(long_number("", '9', 300, ""), ERROR_NONE);
    assert_number(long_number("0.", '0', 300, "123"), ERROR_NONE);
}

static void refuses_zeros_with_more_places_than_the_database_has(void **state)
{
    (void)state;
    assert_numbers("0e-20000|0e-999999|0.0e-999999999999999999999|0e999999999999999999999",
                   ERROR_INVALID_PAYLOAD);
    assert_number(long_number("0.", '0', 20000, ""), ERROR_INVALID_PAYLOAD);
}

/* An event whose last member has so many levels of arrays or objects. */
static const char *nested(const char *open, const char *innermost, const char *close, size_t levels)
{
    char *at = stpcpy(event, EVENT("evt_1", "{},\"other\":"));

    at--; /* the closing brace comes last */
    for (size_t i = 0; i < levels; i++)
        at = stpcpy(at, open);
    at = stpcpy(at, innermost);
    for (size_t i = 0; i < levels; i++)
        at = stpcpy(at, close);
    stpcpy(at, "}");
    return event;
}

static void counts_levels_of_arrays_and_objects_in_any_member(void **state)
{
    (void)state;
    assert_event(nested("[", "", "]", 31), ERROR_NONE);
    assert_event(nested("[", "", "]", 32), ERROR_INVALID_EVENT);
    assert_event(nested("{\"a\":", "1", "}", 31), ERROR_NONE);
    assert_event(nested("{\"a\":", "1", "}", 32), ERROR_INVALID_EVENT);
    /* A number is not a level of its own, nor is a bracket in a string. */
    assert_event(nested("[", "1", "]", 31), ERROR_NONE);
    assert_event(nested("[", "1", "]", 32), ERROR_INVALID_EVENT);
    assert_event(nested("[", "\"[{[{\\\"[{[{\"", "]", 31), ERROR_NONE);
    assert_event(nested("[", "", "]", 1000), ERROR_INVALID_EVENT);
    assert_event(nested("[", "", "]", 30000), ERROR_INVALID_EVENT);
}

static void allows_white_space_between_any_two_tokens(void **state)
{
    const char *spaces = " |\t|\n|\r\n| \t\r\n \t\r\n \t\r\n";
    char space[LISTED_BYTES];
    (void)state;
    while (next_listed(&spaces, space)) {
        const char *tokens = "|[|{|\"id\"|:|\"evt_1\"|,|\"source\"|:|\"macbook\"|,|\"timestamp\"|:|"
                             "\"2026-02-03T14:30:00Z\"|,|\"type\"|:|\"tool\"|,|\"payload\"|:|{|"
                             "\"a\"|:|[|1|,|true|]|}|}|]";
        char token[LISTED_BYTES];
        char body[2048] = "";
        char *at = body;

        while (next_listed(&tokens, token))
            at = stpcpy(stpcpy(at, token), space);
        assert_judged(body, ERROR_NONE);
    }
}

static void counts_the_white_space_in_an_event_and_not_around_it(void **state)
{
    static const char EVENT_TEXT[] = EVENT("evt_1", "{}");
    char *body = malloc(3 * BATCH_EVENT_BYTES);
    char *at = body;
    (void)state;
    *at++ = '[';
    memset(at, ' ', BATCH_EVENT_BYTES);
    at = stpcpy(at + BATCH_EVENT_BYTES, EVENT_TEXT);
    memset(at, '\n', BATCH_EVENT_BYTES);
    stpcpy(at + BATCH_EVENT_BYTES, "]");
    assert_int_equal(judge(body, strlen(body)), ERROR_NONE);

    at = stpcpy(body, "[{");
    memset(at, ' ', BATCH_EVENT_BYTES);
    stpcpy(stpcpy(at + BATCH_EVENT_BYTES, EVENT_TEXT + 1), "]");
    assert_int_equal(judge(body, strlen(body)), ERROR_INVALID_EVENT);
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_a_body_that_is_not_an_array),
        cmocka_unit_test(refuses_a_broken_word_in_place_of_an_event),
        cmocka_unit_test(refuses_5_mib_of_one_thing),
        cmocka_unit_test(refuses_5_mib_of_empty_events),
        cmocka_unit_test(refuses_every_encoding_but_utf_8),
        cmocka_unit_test(refuses_invalid_utf_8_in_any_place),
        cmocka_unit_test(refuses_characters_that_jsonb_cannot_store),
        cmocka_unit_test(does_not_end_a_name_at_a_nul),
        cmocka_unit_test(refuses_what_strict_json_does_not_allow),
        cmocka_unit_test(refuses_a_raw_nul),
        cmocka_unit_test(refuses_numbers_beyond_a_double),
        cmocka_unit_test(accepts_numbers_that_a_double_holds),
        cmocka_unit_test(refuses_zeros_with_more_places_than_the_database_has),
        cmocka_unit_test(counts_levels_of_arrays_and_objects_in_any_member),
        cmocka_unit_test(allows_white_space_between_any_two_tokens),
        cmocka_unit_test(counts_the_white_space_in_an_event_and_not_around_it),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
