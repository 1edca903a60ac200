#include "db/array.h"
#include "unit.h"

#include <stdlib.h>

static void encodes_items_behind_their_lengths(void **state)
{
    static const struct array_item ITEMS[] = {{"abc", 2}, {"", 0}, {"x\0y", 3}};
    static const unsigned char EXPECTED[] = {
        0, 0, 0, 1, 0,   0,   0, 0, 0, 0, 0, 25, 0, 0, 0,   3, 0,  0, 0, 1, /* header */
        0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0, 0, 0,  0, 3, 'x', 0, 'y'};
    size_t length;
    unsigned char *array = array_of_text(ITEMS, 3, &length);
    (void)state;
    assert_non_null(array);
    assert_int_equal(length, sizeof(EXPECTED));
    assert_memory_equal(array, EXPECTED, sizeof(EXPECTED));
    free(array);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_items_behind_their_lengths),
    };

    return cmocka_run_group_tests_name("array", tests, NULL, NULL);
}
