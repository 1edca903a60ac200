/* The way in: lines of the input become events of the spool, or are set aside. */
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
    bool is_stuck; /* the log says that input waits */
};

enum intake_step {
    INTAKE_MORE,    /* there may be more to read */
    INTAKE_NOTHING, /* not at the moment */
    INTAKE_STUCK,   /* what was read can't be kept now; nothing of it is lost */
    INTAKE_END,     /* nothing more will come */
};

/*
 * Takes in what is there, a bounded amount of it. is_readable: the input's
 * descriptor, if it has one, can be read without waiting.
 */
enum intake_step intake_run(struct intake *intake, bool is_readable);

/*
 * At the end: takes in what was read and, if nothing more is there to be read,
 * the unfinished last line of a stream.
 */
void intake_end(struct intake *intake, bool is_drained);

#endif
