#include "http/reply.h"
#include "unit.h"

#include <json-c/json.h>
#include <string.h>

static struct buffer out;

static int tear_down(void **state)
{
    (void)state;
    buffer_free(&out);
    return 0;
}

static void writes_every_error_as_json(void **state)
{
    (void)state;
    for (enum error e = ERROR_METHOD_NOT_ALLOWED; e < ERROR_COUNT; e++) {
        struct json_object *parsed;
        struct json_object *member;

        buffer_reset(&out);
        reply_add_error(&out, e);
        parsed = json_tokener_parse(out.text);
        assert_true(json_object_object_get_ex(parsed, "error", &member));
        assert_string_equal(json_object_get_string(member), error_entry(e)->code);
        assert_true(json_object_object_get_ex(parsed, "message", &member));
        assert_string_equal(json_object_get_string(member), error_entry(e)->message);
        json_object_put(parsed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(writes_every_error_as_json, tear_down),
    };

    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
