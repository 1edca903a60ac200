/*
 * The input: lines from standard input, from a FIFO whose writers come and go,
 * or from a file that is followed through truncation and rotation.
 *
 * A followed file is read to its end, and checked for more once a second. When
 * another file is at its path and is not empty, the old one is left: it is read
 * until it has been quiet for some time, and its successor is another input.
 * After a restart, reading continues at the last position: in the same file, in
 * the file it was renamed to, or in its copy (struct position).
 */
#ifndef STEEP_INPUT_H
#define STEEP_INPUT_H

#include "base/error.h"
#include "complete.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    INPUT_LINE_BYTES = COMPLETE_LINE_BYTES, /* the rest of a longer line is skipped */
    INPUT_BUFFER_BYTES = 256 * 1024,
    INPUT_CHECK_MS = 1000,
};

enum input_kind { INPUT_STREAM, INPUT_FIFO, INPUT_FILE };

struct input {
    enum input_kind kind;
    const char *path;
    int file;                 /* -1 while there is no file at the path */
    struct position position; /* of start; a stream only has a line number */
    size_t start;             /* of the next line; what is before it was taken */
    size_t filled;
    size_t scanned;         /* no newline between start and here */
    uint64_t skipped_bytes; /* of the line at start, after its INPUT_LINE_BYTES */
    int64_t birth_ms; /* when the file was created, or 0; limits seen_ms if the clock is set back */
    bool is_too_long; /* the line at start is longer than INPUT_LINE_BYTES */
    bool has_line_end;   /* and its newline was found */
    bool is_at_end;      /* nothing came since the end was reached */
    bool may_leave;      /* another input can be opened for the successor */
    bool is_left;        /* that was done */
    bool is_eof;         /* nothing more will come: the last line may lack its newline */
    bool is_missing;     /* no file at the path, which was logged */
    int64_t quiet_ms;    /* after how long without a line a left file is closed */
    int64_t quiet_since; /* clock_ms */
    char buffer[POSITION_TAIL_BYTES + INPUT_BUFFER_BYTES];
};

struct input_line {
    const char *text; /* without the newline or CRLF */
    size_t length;
    uint64_t number;
    bool is_too_long;
    struct position position; /* after it */
    size_t bytes;             /* in the buffer */
};

/*
 * Opens the input; NULL is standard input. from: the last position in a
 * followed file. False, and logged, if it can't. Close with input_close.
 */
bool input_open(struct input *input, const char *path, const struct position *from) MUST_CHECK;
void input_close(struct input *input);

/*
 * Continues at a position in a file that was left before a restart. False, and logged,
 * if it isn't found.
 */
bool input_open_left(struct input *input, const char *path, const struct position *from) MUST_CHECK;

/* Opens the successor of an input that returned INPUT_ROTATED; false if there is none. */
bool input_open_next(struct input *input, struct input *left) MUST_CHECK;

/* The descriptor to poll; -1 for a followed file, which is read every INPUT_CHECK_MS instead. */
int input_descriptor(const struct input *input);

enum input_step {
    INPUT_DATA,    /* there may be lines, and more to read */
    INPUT_NOTHING, /* nothing to read at the moment */
    INPUT_ROTATED, /* a file was left, which is read further on */
    INPUT_END,     /* the input has ended; there may be a last line */
};

/* Reads into the buffer. Take all lines before the next call. */
enum input_step input_read(struct input *input);

/* The next complete line, if there is one; valid until input_take or input_read. */
bool input_line(struct input *input, struct input_line *line) MUST_CHECK;

/* Marks a line as processed. */
void input_take(struct input *input, const struct input_line *line);

#endif
