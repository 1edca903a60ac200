/* Turns lines of the input into events of the spool, or rejects them. */
#ifndef STEEP_INTAKE_H
#define STEEP_INTAKE_H

#include "complete.h"
#include "input.h"
#include "rejected.h"
#include "spool.h"

struct intake {
    struct input *input;
    struct completer *completer;
    struct spool *spool;
    struct rejected *rejected;
    bool is_paused; /* and this was logged */
};

enum intake_step {
    INTAKE_MORE,    /* there may be more to read */
    INTAKE_NOTHING, /* nothing to read at the moment */
    INTAKE_PAUSED,  /* a line can't be written now, and is kept for the next call */
    INTAKE_END,     /* the input has ended */
};

/*
 * Reads a bounded amount of input. is_readable: the input's descriptor, if it
 * has one, can be read without blocking.
 */
enum intake_step intake_run(struct intake *intake, bool is_readable);

/*
 * At the end: takes in the lines that were read. is_drained: the stream is
 * read to its end, so a last line without a newline counts.
 */
void intake_end(struct intake *intake, bool is_drained);

#endif
