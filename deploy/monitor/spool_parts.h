/* What the two files of the spool, its writer's and its reader's, share. */
#ifndef STEEP_SPOOL_PARTS_H
#define STEEP_SPOOL_PARTS_H

#include "spool.h"

/* The segment that is written. Under the lock, as the reader removes what stands before it. */
struct spool_segment *spool_last(struct spool *spool);

/* Says what failed, and why. */
void spool_report(const char *detail, int error);

/* Removes the files of segments that are not in the list any more. */
void spool_remove(struct spool *spool, const uint64_t *numbers, size_t count);

#endif
