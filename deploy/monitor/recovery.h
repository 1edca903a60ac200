/*
 * Recovery: what a spool's folder holds, after whatever end its last user had.
 *
 * Segments but the last were on the disk before the next was begun. In the
 * last, what was not yet synced may be torn by a power cut: it is cut off
 * where no whole record follows. Where some do and the input is a followed
 * file, it is cut as well, since the file's lines from there on will be read
 * again; elsewhere the reader passes over the damage. A last segment without a
 * whole record is one that was being begun: the one before it is the last.
 */
#ifndef STEEP_RECOVERY_H
#define STEEP_RECOVERY_H

#include "cursor.h"

struct recovery {
    struct spool_segment *segments; /* oldest first; bytes is what stays of each */
    size_t count;
    struct cursor cursor; /* in one of the segments, or behind them all */
    uint64_t next_serial;
    struct position position;
    bool must_rotate; /* the last segment is not to be written any more */
};

/*
 * Looks at a folder and changes nothing, the caller does. Says in the log what
 * it found damaged, if told to. False with errno where it can't be read. Free
 * with recovery_free in any case.
 */
bool recovery_run(struct recovery *recovery, int folder, bool is_logged) MUST_CHECK;
void recovery_free(struct recovery *recovery);

#endif
