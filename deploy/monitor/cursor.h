/* The cursor: which events need not be sent again, in a file beside the segments. */
#ifndef STEEP_CURSOR_H
#define STEEP_CURSOR_H

#include "spool.h"

struct cursor {
    struct spool_place place;
    uint64_t sent; /* events in all */
};

/* Replaces the file, durably. False with errno, and the old one stays. */
bool cursor_write(int folder, const struct cursor *cursor) MUST_CHECK;

enum cursor_verdict { CURSOR_READ, CURSOR_MISSING, CURSOR_DAMAGED };

enum cursor_verdict cursor_read(int folder, struct cursor *cursor) MUST_CHECK;

#endif
