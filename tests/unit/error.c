#include "base/error.h"
#include "unit.h"

#include <string.h>

static void has_an_entry_for_every_error(void **state)
{
    (void)state;
    for (enum error e = ERROR_NONE + 1; e < ERROR_COUNT; e++) {
        const struct error_entry *entry = error_entry(e);

        assert_true(entry->status >= 400 && entry->status <= 599);
        assert_true(strlen(entry->code) > 0);
        assert_true(strlen(entry->message) > 0);
        /* Written into JSON unescaped. */
        assert_null(strpbrk(entry->code, "\"\\"));
        assert_null(strpbrk(entry->message, "\"\\\n"));
    }
}

static void finds_the_errors_of_events_by_their_codes(void **state)
{
    (void)state;
    assert_int_equal(error_of_event("invalid_payload", 15), ERROR_INVALID_PAYLOAD);
    assert_int_equal(error_of_event("invalid_timestamp", 17), ERROR_INVALID_TIMESTAMP);
    assert_int_equal(error_of_event("source_mismatch", 15), ERROR_SOURCE_MISMATCH);
    assert_int_equal(error_of_event("invalid_pay", 11), ERROR_INVALID_EVENT);
    assert_int_equal(error_of_event("unavailable", 11), ERROR_INVALID_EVENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_an_entry_for_every_error),
        cmocka_unit_test(finds_the_errors_of_events_by_their_codes),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
