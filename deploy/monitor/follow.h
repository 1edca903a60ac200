/* Where a followed file was left off, and where that is now. */
#ifndef STEEP_FOLLOW_H
#define STEEP_FOLLOW_H

#include "error.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>

/* The last bytes before an offset of a file; at most POSITION_TAIL_BYTES. -1 with errno. */
int follow_tail(int file, uint64_t offset, char tail[static POSITION_TAIL_BYTES]) MUST_CHECK;

/* Whether a file has what stood before a position, and so goes on from it. */
bool follow_matches(int file, const struct position *position) MUST_CHECK;

/*
 * Opens the file that a path's file was renamed or copied to: it lies in the
 * same folder, its name begins with the path's, it is not the file of this
 * device and inode, and has what stood before the position. -1 where there is
 * none.
 */
int follow_find(const char *path, const struct position *position, uint64_t device,
                uint64_t inode) MUST_CHECK;

#endif
