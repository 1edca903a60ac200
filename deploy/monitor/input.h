/*
 * The input: lines from standard input, from a FIFO whose writers come and go,
 * or from a file that is followed through truncation and rotation.
 *
 * A followed file is read to its end and looked at again every second. Once
 * another file stands at its path and has something in it, the old one is read
 * to its end and left. Where it was left off is found again after a stop: in
 * the file, in the one it was renamed to, or in its copy (see struct position).
 */
#ifndef STEEP_INPUT_H
#define STEEP_INPUT_H

#include "base/error.h"
#include "complete.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    INPUT_LINE_BYTES = COMPLETE_LINE_BYTES, /* of a longer line, this much is kept */
    INPUT_BUFFER_BYTES = 256 * 1024,
    INPUT_CHECK_MS = 1000,
};

enum input_kind { INPUT_STREAM, INPUT_FIFO, INPUT_FILE };

struct input {
    enum input_kind kind;
    const char *path;
    int file;                 /* -1 while there is none at the path */
    struct position position; /* of start; for a stream only its line counts */
    size_t start;             /* of the first line not yet taken; before it stands what was */
    size_t filled;
    size_t scanned;     /* no line ends between start and here */
    uint64_t cut_bytes; /* left out of the line at start, behind its INPUT_LINE_BYTES */
    int64_t made_ms;   /* of the file, or 0; never seen before that, though the clock is set back */
    bool is_cut;       /* the line at start is longer than INPUT_LINE_BYTES */
    bool is_cut_whole; /* and its end was found */
    bool is_idle;      /* the end was reached since something was read */
    bool is_leaving;   /* another file stands at the path; this one is read to its end */
    bool is_ended;     /* that was reached: the last line may lack its newline */
    bool is_missed;    /* the log says that there is no file at the path */
    char buffer[POSITION_TAIL_BYTES + INPUT_BUFFER_BYTES];
};

struct input_line {
    const char *text; /* without its newline, and a carriage return before it */
    size_t length;
    uint64_t number;
    bool is_cut;
    struct position position; /* behind it */
    size_t bytes;             /* what it takes of the buffer */
};

/*
 * Opens the input; NULL is standard input. from: where a followed file was
 * left off. False after a line in the log. Close with input_close.
 */
bool input_open(struct input *input, const char *path, const struct position *from) MUST_CHECK;
void input_close(struct input *input);

/* The descriptor to poll for reading; -1 for a followed file, which is looked at instead. */
int input_descriptor(const struct input *input);

enum input_step {
    INPUT_DATA,    /* there may be lines now, and more behind them */
    INPUT_NOTHING, /* at the moment */
    INPUT_END,     /* no more will come, but there may be a last line */
};

/* Reads on, as far as there is room; take the lines before the next call. */
enum input_step input_read(struct input *input);

/* The next line, if a whole one is there; it lives until input_take or input_read. */
bool input_line(struct input *input, struct input_line *line) MUST_CHECK;

/* Passes over a line that was dealt with. */
void input_take(struct input *input, const struct input_line *line);

#endif
