/*
 * How large the answers to recent questions were, so that what is too large is not tried in vain
 * each time: the last 64 questions whose answers were not as expected. Any thread may call this.
 */
#ifndef STEEP_SIZES_H
#define STEEP_SIZES_H

#include "answer/question.h"
#include "base/attributes.h"

#include <stdbool.h>

enum size {
    SIZES_LARGE_PLAIN, /* not to be built whole, as it is */
    SIZES_LARGE_GZIP,  /* nor compressed */
    SIZES_LONG,        /* DATABASE_PIECE_ROWS rows or more */
    SIZES,
};

/*
 * Notes whether the answer to a question had a size. otherwise is what is expected without a
 * note: a question that has none gets its first only if the answer differed from that.
 */
void sizes_note(const struct question *asked, enum size size, bool is_so, bool otherwise);

/* Whether the last note about it says so; otherwise if there is none. */
bool sizes_expect(const struct question *asked, enum size size, bool otherwise) MUST_CHECK;

#endif
