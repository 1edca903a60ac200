/* Turns lines of the input into events of the spool, or rejects them. */
#ifndef STEEP_INTAKE_H
#define STEEP_INTAKE_H

#include "complete.h"
#include "input.h"
#include "spool.h"

enum { INTAKE_INPUTS = SPOOL_POSITIONS }; /* the current file, and others that are not quiet yet */

struct intake {
    struct completer *completer;
    struct spool *spool;
    int64_t quiet_ms;                    /* see struct input */
    struct input *inputs[INTAKE_INPUTS]; /* the current one is the last */
    size_t count;
    bool is_changed; /* something was added since the last commit */
    bool is_clock_set;
    bool is_paused; /* and this was logged */
    bool is_ending; /* commits the lines of a stream even if the spool is full and blocks */
};

/*
 * Opens the input, NULL for standard input; a followed file continues where the
 * last commit was. False, and logged, if it can't. Close with intake_close.
 */
bool intake_open(struct intake *intake, const char *path) MUST_CHECK;
void intake_close(struct intake *intake);

/* The current input. */
struct input *intake_input(const struct intake *intake);

enum intake_step {
    INTAKE_MORE,    /* there may be more to read */
    INTAKE_NOTHING, /* nothing to read at the moment */
    INTAKE_PAUSED,  /* what was read can't be committed now, and is kept for the next call */
    INTAKE_END,     /* the input has ended */
};

/*
 * Reads a bounded amount of input. is_readable: the input's descriptor, if it
 * has one, can be read without blocking.
 */
enum intake_step intake_run(struct intake *intake, bool is_readable);

/* Commits what was read; false if the input has to pause. */
bool intake_commit(struct intake *intake) MUST_CHECK;

/*
 * At the end: takes in and commits the lines that were read. is_drained: the
 * stream is read to its end, so a last line without a newline counts. Logs if
 * lines of a stream are lost.
 */
void intake_end(struct intake *intake, bool is_drained);

#endif
