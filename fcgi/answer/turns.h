/*
 * Who may stream: at most half of the connections to the database, at least one, are for
 * answers in parts, which last as long as their clients take. Connections that there are too
 * few workers to use do not count. Any thread may call this.
 */
#ifndef STEEP_TURNS_H
#define STEEP_TURNS_H

#include "base/attributes.h"
#include "base/config.h"

#include <stdbool.h>
#include <stdint.h>

/* A turn that is free now. */
bool turns_try(const struct config *config) MUST_CHECK;

/*
 * Waits for a turn until deadline (clock_ms). At most a quarter of the workers wait: one of
 * three to seven, none of one or two. For others it is false at once.
 */
bool turns_take(const struct config *config, int64_t deadline) MUST_CHECK;

void turns_give_back(void);

#endif
