/* Where a followed file was left off, and where that is now. */
#ifndef STEEP_FOLLOW_H
#define STEEP_FOLLOW_H

#include "base/error.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>

/* The wall's clock, in milliseconds since 1970. */
int64_t follow_now(void);

/* When a file was made, in the same; the value given where the file system doesn't know. */
int64_t follow_birth(int file, int64_t unknown);

/* The last bytes before an offset of a file; at most POSITION_TAIL_BYTES. -1 with errno. */
int follow_tail(int file, uint64_t offset, char tail[static POSITION_TAIL_BYTES]) MUST_CHECK;

/* Whether a file has what stood before a position. */
bool follow_matches(int file, const struct position *position) MUST_CHECK;

/* Whether it is the position's file: not one made later that got its inode, and not another's. */
bool follow_is_file(int file, const struct position *position) MUST_CHECK;

/*
 * Opens the file that a path's file was renamed or copied to. It lies in the
 * same folder, its name begins with the path's, it has what stood before the
 * position, and it is the position's file itself or was made after the
 * position was read: lines may all be alike, and an older file is no copy. Not
 * the file of this device and inode. -1 where there is none.
 */
int follow_find(const char *path, const struct position *position, uint64_t device,
                uint64_t inode) MUST_CHECK;

/*
 * Opens the file that was begun next after this one, which was read to its end
 * and last seen at the path at that time: among those that rotating has named
 * after the path, with a number or a date. -1 where there is none and the
 * newest comes next, which was opened at the path before; also where the file
 * system doesn't know when its files were made.
 */
int follow_next(const char *path, int file, int64_t seen_ms, int newest) MUST_CHECK;

#endif
