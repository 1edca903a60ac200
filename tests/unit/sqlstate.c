#include "db/sqlstate.h"
#include "unit.h"

static void assert_class(enum sqlstate_class expected, const char *codes)
{
    char code[LISTED_BYTES];

    while (next_listed(&codes, code)) {
        if (sqlstate_classify(code) != expected)
            fail_msg("%s is %d, expected %d", code, (int)sqlstate_classify(code), (int)expected);
    }
}

static void connection_errors_and_a_missing_code_mean_lost(void **state)
{
    (void)state;
    assert_int_equal(sqlstate_classify(NULL), SQLSTATE_LOST);
    assert_class(SQLSTATE_LOST, "08006|08P01|57P01|57P02|57P03");
}

static void data_errors_are_bad_data(void **state)
{
    (void)state;
    assert_class(SQLSTATE_BAD_DATA, "22P02|22P05|22003|22021|22008|23502|23514|54000|54001");
}

static void conflicts_can_be_retried(void **state)
{
    (void)state;
    assert_class(SQLSTATE_CONFLICT, "40001|40P01");
}

static void shortages_are_temporary(void **state)
{
    (void)state;
    assert_class(SQLSTATE_SHORTAGE, "53100|53200|53300|55P03|57014|25006|XX000");
}

static void every_other_code_is_a_fault(void **state)
{
    (void)state;
    assert_class(SQLSTATE_FAULT, "42883|42501|42P01|23505|0A000|XX001|");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connection_errors_and_a_missing_code_mean_lost),
        cmocka_unit_test(data_errors_are_bad_data),
        cmocka_unit_test(conflicts_can_be_retried),
        cmocka_unit_test(shortages_are_temporary),
        cmocka_unit_test(every_other_code_is_a_fault),
    };

    return cmocka_run_group_tests_name("sqlstate", tests, NULL, NULL);
}
