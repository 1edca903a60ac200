#include "db/sqlstate.h"
#include "unit.h"

static void assert_class(enum sqlstate_class expected, const char *const *codes)
{
    for (; *codes != NULL; codes++) {
        if (sqlstate_classify(*codes) != expected)
            fail_msg("%s is %d, expected %d", *codes, (int)sqlstate_classify(*codes),
                     (int)expected);
    }
}

static void a_statement_without_a_code_is_lost(void **state)
{
    static const char *const CODES[] = {"08006", "08P01", "57P01", "57P02", "57P03", NULL};
    (void)state;
    assert_int_equal(sqlstate_classify(NULL), SQLSTATE_LOST);
    assert_class(SQLSTATE_LOST, CODES);
}

static void bad_data_is_the_client_s(void **state)
{
    static const char *const CODES[] = {"22P02", "22P05", "22003", "22021", "22008",
                                        "23502", "23514", "54000", "54001", NULL};
    (void)state;
    assert_class(SQLSTATE_BAD_DATA, CODES);
}

static void conflicts_are_worth_another_try(void **state)
{
    static const char *const CODES[] = {"40001", "40P01", NULL};
    (void)state;
    assert_class(SQLSTATE_CONFLICT, CODES);
}

static void a_shortage_passes(void **state)
{
    static const char *const CODES[] = {"53100", "53200", "53300", "55P03",
                                        "57014", "25006", "XX000", NULL};
    (void)state;
    assert_class(SQLSTATE_SHORTAGE, CODES);
}

static void everything_else_is_a_fault(void **state)
{
    static const char *const CODES[] = {"42883", "42501", "42P01", "23505",
                                        "0A000", "XX001", "",      NULL};
    (void)state;
    assert_class(SQLSTATE_FAULT, CODES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_statement_without_a_code_is_lost),
        cmocka_unit_test(bad_data_is_the_client_s),
        cmocka_unit_test(conflicts_are_worth_another_try),
        cmocka_unit_test(a_shortage_passes),
        cmocka_unit_test(everything_else_is_a_fault),
    };

    return cmocka_run_group_tests_name("sqlstate", tests, NULL, NULL);
}
