/* For every unit test: cmocka needs these headers before its own. */
#ifndef STEEP_UNIT_H
#define STEEP_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { LISTED_BYTES = 128 };

/* Takes the next text from a list of texts with | between them; false after the last. */
static inline bool next_listed(const char **list, char text[static LISTED_BYTES])
{
    size_t length;

    if (*list == NULL)
        return false;
    length = strcspn(*list, "|");
    assert_true(length < LISTED_BYTES);
    memcpy(text, *list, length);
    text[length] = '\0';
    *list = (*list)[length] == '|' ? *list + length + 1 : NULL;
    return true;
}

#endif
