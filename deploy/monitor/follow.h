/* Finds the file that a position belongs to, and the file that came after it. */
#ifndef STEEP_FOLLOW_H
#define STEEP_FOLLOW_H

#include "base/error.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>

/* A checksum of up to POSITION_TAIL_BYTES, see struct position. */
uint64_t follow_check(const void *bytes, size_t length);

/* When a file was created, in ms since 1970; unknown if the file system doesn't record it. */
int64_t follow_birth(int file, int64_t unknown);

/* Reads up to POSITION_TAIL_BYTES before an offset. Returns their number, or -1 with errno. */
int follow_tail(int file, uint64_t offset, char tail[static POSITION_TAIL_BYTES]) MUST_CHECK;

/* Whether the bytes before a position match its checksum. */
bool follow_matches(int file, const struct position *position) MUST_CHECK;

/* Whether it is the position's file, and not a later one with the same inode. */
bool follow_is_file(int file, const struct position *position) MUST_CHECK;

/*
 * Opens the file that a path's file was renamed or copied to; -1 if there is
 * none. It is in the same folder, its name begins with the path's, it matches
 * the position's checksum, and it is the position's file itself or was created
 * after the position was read, as lines may repeat and an older file is not a
 * copy. At offset 0 there is no checksum, and only the file itself is found. The
 * file with this device and inode is excluded.
 */
int follow_find(const char *path, const struct position *position, uint64_t device,
                uint64_t inode) MUST_CHECK;

/*
 * Opens the successor of a file that was read to its end, and was last seen at
 * the path at seen_ms: the oldest newer file that rotation named after the path,
 * with a number or a date. newest: the file now at the path. -1 if that one is
 * the successor, or if the file system doesn't record when files were created.
 */
int follow_next(const char *path, int file, int64_t seen_ms, int newest) MUST_CHECK;

#endif
