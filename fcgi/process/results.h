/*
 * How the recent requests fared in the database, those of process/probe.h included:
 * readiness follows it. A request counts if it had a statement, unless it was refused for
 * what its sender sent.
 *
 * Any thread may call these at any time. now is clock_ms.
 */
#ifndef STEEP_RESULTS_H
#define STEEP_RESULTS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* ERROR_NONE is a success, a 500 or 503 a failure; other errors count as neither. */
void results_note(enum error error, int64_t now);

/*
 * The same for the probe, whose success does not end failures that it had no part in: it
 * stores no event, so that requests may fail for a reason that it does not meet.
 */
void results_note_probe(enum error error, int64_t now);

/* Whether the last one was a failure. */
bool results_last_failed(void);

/*
 * Whether the recent ones all failed: the last three, or all so far if there was no
 * success yet. Those of more than 15 s ago are not recent.
 */
bool results_all_failed(int64_t now);

/* When the last success was; 0 for never. */
int64_t results_succeeded_at(void);

#endif
