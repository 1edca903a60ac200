/* A place in a followed file, where reading continues after a restart. */
#ifndef STEEP_POSITION_H
#define STEEP_POSITION_H

#include <stdint.h>

enum { POSITION_TAIL_BYTES = 64 };

/* All zero if the input is not a followed file. */
struct position {
    uint64_t device;
    uint64_t inode;
    uint64_t offset; /* of the next line */
    uint64_t line;   /* number of lines before it */

    /*
     * A checksum (follow_check) of up to 64 bytes before the offset. It tells
     * the file from another one with the same inode, and identifies a copy.
     */
    uint64_t tail;

    /*
     * When the file was last seen at the path, in milliseconds since 1970: its
     * copies and its successors are newer. For a copy: when it was created.
     */
    int64_t seen_ms;
};

#endif
