#include "cursor.h"

#include "files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char NAME[] = "cursor";

enum { CURSOR_BYTES = 256 };

/* Text, so that an operator can read it; the last line is the check of those before. */
static size_t format(const struct cursor *cursor, char text[static CURSOR_BYTES])
{
    int length =
        snprintf(text, CURSOR_BYTES,
                 "segment=%" PRIu64 "\noffset=%" PRIu64 "\nserial=%" PRIu64 "\nsent=%" PRIu64 "\n",
                 cursor->place.segment, cursor->place.offset, cursor->place.serial, cursor->sent);

    length += snprintf(text + length, CURSOR_BYTES - (size_t)length, "check=%016" PRIx64 "\n",
                       record_check(text, (size_t)length));
    return (size_t)length;
}

bool cursor_write(int folder, const struct cursor *cursor)
{
    char text[CURSOR_BYTES];
    size_t length = format(cursor, text);

    return files_replace(folder, NAME, text, length, true);
}

enum cursor_verdict cursor_read(int folder, struct cursor *cursor)
{
    char text[CURSOR_BYTES];
    char same[CURSOR_BYTES];
    struct cursor found = {0};
    ssize_t length = files_read(folder, NAME, text, sizeof(text));

    if (length < 0)
        return errno == ENOENT ? CURSOR_MISSING : CURSOR_DAMAGED;
    /* What comes out the same when it is written again was read rightly. */
    if (!files_number(text, "segment", &found.place.segment) ||
        !files_number(text, "offset", &found.place.offset) ||
        !files_number(text, "serial", &found.place.serial) ||
        !files_number(text, "sent", &found.sent) || format(&found, same) != (size_t)length ||
        memcmp(text, same, (size_t)length) != 0)
        return CURSOR_DAMAGED;
    *cursor = found;
    return CURSOR_READ;
}
