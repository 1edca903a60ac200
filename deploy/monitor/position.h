/* A place in a followed file, by which it is found again after a stop. */
#ifndef STEEP_POSITION_H
#define STEEP_POSITION_H

#include <stdint.h>

enum { POSITION_TAIL_BYTES = 64 };

/* All zero where the input is no file that is followed. */
struct position {
    uint64_t device;
    uint64_t inode;
    uint64_t offset; /* of the first byte not yet read as a line */
    uint64_t line;   /* how many lines end before it */

    /*
     * The check (record_check) of up to 64 bytes before the offset. It tells
     * the file from another with the same inode, and finds its copy.
     */
    uint64_t tail;

    /*
     * When the file was last seen at the path, in milliseconds since 1970: its
     * copies, and the files that came after it, are younger. For one that was
     * found elsewhere, when that was made.
     */
    int64_t seen_ms;
};

#endif
