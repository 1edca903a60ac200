/*
 * The log lines of requests without valid credentials. Anybody can cause as many as nginx
 * lets pass, so each kind, an error, has at most one line a second, which says how many
 * requests of the kind were left out since the last one.
 *
 * Any thread may call these at any time. now is clock_ms.
 */
#ifndef STEEP_STRANGERS_H
#define STEEP_STRANGERS_H

#include "base/attributes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether a refused request may have a line now, and if so, how many of its kind were left
 * out since the last one. Otherwise it counts as left out.
 */
bool strangers_take_line(enum error error, int64_t now, uint64_t *left_out) MUST_CHECK;

enum { STRANGERS_REST_MS = 2000 };

/*
 * Whether requests were left out and the last line is STRANGERS_REST_MS old; if so, how
 * many. They may have a line of their own then. Sooner, it would take the place of a
 * request's line, which says more.
 */
bool strangers_take_rest(enum error error, int64_t now, uint64_t *left_out) MUST_CHECK;

#endif
