/*
 * The progress of an import on standard error: after two seconds on a terminal, in one line that
 * is drawn again each second; elsewhere as a line every ten seconds. deploy/admin/progress.sh has
 * the same words.
 */
#ifndef STEEP_PROGRESS_H
#define STEEP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool is_quiet, is_terminal;
    bool is_drawn;              /* a line is on the terminal */
    int64_t began_ms, shown_ms; /* of clock_ms */
};

/* Begins at now_ms. Nothing is ever shown if it is quiet. */
void progress_begin(struct progress *progress, bool is_quiet, int64_t now_ms);

/*
 * Shows at now_ms how many are done, if it is time to. total is 0 if it is not known, and may be
 * too small.
 */
void progress_show(struct progress *progress, int64_t now_ms, int64_t done, int64_t total,
                   const char *unit);

/* Removes the line from the terminal. Call it before something else is written there. */
void progress_wipe(struct progress *progress);

#endif
