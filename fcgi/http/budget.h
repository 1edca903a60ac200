/*
 * Limits the bytes of bodies, or of answers, that all workers together hold: the number of
 * workers says little about memory, as a body may have 5 MiB. Any thread may call this.
 */
#ifndef STEEP_BUDGET_H
#define STEEP_BUDGET_H

#include "base/attributes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BUDGET_BYTES = 32 * 1024 * 1024,
    /* A body or an answer of up to this size is not counted, and waits for nobody. */
    BUDGET_SMALL_BYTES = 64 * 1024,
};

/*
 * Takes so many bytes, at most BUDGET_BYTES. Waits for them in order of arrival, so that
 * smaller bodies do not keep a large one waiting. False if they are not free before
 * deadline (clock_ms).
 */
bool budget_take(size_t bytes, int64_t deadline) MUST_CHECK;

/* Gives back what budget_take or budget_resize took. */
void budget_give_back(size_t bytes);

/*
 * For what grows or shrinks: takes or gives back the difference between what it has taken so
 * far (0: nothing) and what it needs now. False, and nothing changes, if that is not free at
 * once, or others wait.
 */
bool budget_resize(size_t from, size_t to) MUST_CHECK;

#endif
