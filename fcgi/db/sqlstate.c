#include "db/sqlstate.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static bool is_one_of(const char *sqlstate, const char *const *classes)
{
    for (; *classes != NULL; classes++) {
        if (strncmp(sqlstate, *classes, strlen(*classes)) == 0)
            return true;
    }
    return false;
}

enum sqlstate_class sqlstate_classify(const char *sqlstate)
{
    static const char *const LOST[] = {"57P01", "57P02", "57P03", "57P05", "08", NULL};
    static const char *const BAD_DATA[] = {"22", "23502", "23514", "54000", "54001", NULL};
    static const char *const CONFLICTS[] = {"40001", "40P01", NULL};
    /* A proxy database reports XX000 when the database behind it is away. */
    static const char *const SHORTAGES[] = {"53",    "55P03", "57014", "25006",
                                            "25P03", "58030", "XX000", NULL};

    if (sqlstate == NULL || is_one_of(sqlstate, LOST))
        return SQLSTATE_LOST;
    if (is_one_of(sqlstate, BAD_DATA))
        return SQLSTATE_BAD_DATA;
    if (is_one_of(sqlstate, CONFLICTS))
        return SQLSTATE_CONFLICT;
    if (is_one_of(sqlstate, SHORTAGES))
        return SQLSTATE_SHORTAGE;
    return SQLSTATE_FAULT;
}
