#include "input.h"

#include "base/clock.h"
#include "base/log.h"
#include "follow.h"
#include "moment.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void report(const struct input *input, enum log_level level, const char *event,
                   const char *detail)
{
    struct log_line line;

    log_begin(&line, level, event);
    log_string(&line, "file", input->path == NULL ? "-" : input->path);
    log_string(&line, "detail", detail);
    log_end(&line);
}

/* The file offset to read from next. */
static uint64_t read_offset(const struct input *input)
{
    return input->position.offset + (input->filled - input->start) + input->skipped_bytes;
}

/* Switches to another file, at an offset. False with errno. */
static bool attach(struct input *input, int file, uint64_t offset, uint64_t line, int64_t seen_ms)
{
    struct stat status;
    int length = follow_tail(file, offset, input->buffer);

    if (length < 0 || fstat(file, &status) != 0)
        return false;
    if (input->file >= 0)
        close(input->file);
    input->file = file;
    input->position = (struct position){.device = status.st_dev,
                                        .inode = status.st_ino,
                                        .offset = offset,
                                        .line = line,
                                        .tail = follow_check(input->buffer, (size_t)length),
                                        .seen_ms = seen_ms};
    input->start = input->filled = input->scanned = (size_t)length;
    input->birth_ms = follow_birth(file, 0);
    input->skipped_bytes = 0;
    input->is_too_long = input->has_line_end = false;
    input->is_at_end = input->is_left = input->is_eof = false;
    input->quiet_since = clock_ms();
    return true;
}

/* Opens the file at the path; -1, logged once, if there is none. */
static int open_newest(struct input *input)
{
    int file = open(input->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (file < 0 && !input->is_missing)
        report(input, LOG_WARNING, "input_missing", strerror(errno));
    input->is_missing = file < 0;
    return file;
}

/* Reads the file at the path from its beginning; false if there is none. */
static bool open_path(struct input *input)
{
    const int64_t now = moment_now();
    int file = open_newest(input);

    if (file < 0)
        return false;
    if (attach(input, file, 0, 0, follow_birth(file, now)))
        return true;
    close(file);
    return false;
}

/* The seen_ms of a file that was found for a position: a copy never was at the path. */
static int64_t seen_of(int file, const struct position *position)
{
    return follow_is_file(file, position) ? position->seen_ms
                                          : follow_birth(file, position->seen_ms);
}

/* Continues at the last position: in the file at the path, or in a renamed file or copy. */
static void resume(struct input *input, const struct position *from)
{
    struct stat status = {0};
    int file = open(input->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (file >= 0 && follow_is_file(file, from) &&
        attach(input, file, from->offset, from->line, from->seen_ms))
        return;
    if (file >= 0) {
        (void)fstat(file, &status);
        close(file);
    }
    file = follow_find(input->path, from, status.st_dev, status.st_ino);
    if (file >= 0 && attach(input, file, from->offset, from->line, seen_of(file, from))) {
        report(input, LOG_INFO, "input_rotated", "continuing in the renamed file or copy");
        return;
    }
    if (file >= 0)
        close(file);
    report(input, LOG_WARNING, "input_replaced",
           "the last position was not found, reading the file from its beginning");
    (void)open_path(input);
}

bool input_open(struct input *input, const char *path, const struct position *from)
{
    struct stat status;

    *input = (struct input){.kind = INPUT_STREAM, .path = path, .file = STDIN_FILENO};
    if (path == NULL)
        return true;
    input->file = -1;
    if (stat(path, &status) != 0 ? errno == ENOENT : S_ISREG(status.st_mode)) {
        input->kind = INPUT_FILE;
        if (from->inode != 0)
            resume(input, from);
        else
            (void)open_path(input);
        return true;
    }
    input->file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (input->file < 0 || fstat(input->file, &status) != 0) {
        report(input, LOG_ERROR, "input_error", strerror(errno));
        input_close(input);
        return false;
    }
    if (S_ISDIR(status.st_mode)) {
        report(input, LOG_ERROR, "input_error", strerror(EISDIR));
        input_close(input);
        return false;
    }
    input->kind = S_ISFIFO(status.st_mode) ? INPUT_FIFO : INPUT_STREAM;
    return true;
}

void input_close(struct input *input)
{
    if (input->file > STDIN_FILENO)
        close(input->file);
    input->file = -1;
}

int input_descriptor(const struct input *input)
{
    return input->kind == INPUT_FILE ? -1 : input->file;
}

/*
 * Whether the file still has what was read of it. It may have been truncated, and even have grown
 * again since.
 */
static bool is_same(struct input *input)
{
    struct position reached = {.offset = read_offset(input)};
    size_t length = input->filled < POSITION_TAIL_BYTES ? input->filled : POSITION_TAIL_BYTES;
    const int64_t now = moment_now();
    struct stat status;

    if (fstat(input->file, &status) != 0 || (uint64_t)status.st_size < reached.offset)
        return false;
    if (input->is_at_end && !input->is_too_long) {
        reached.tail = follow_check(input->buffer + input->filled - length, length);
        if (!follow_matches(input->file, &reached))
            return false;
    }
    if (stat(input->path, &status) == 0 && status.st_dev == input->position.device &&
        status.st_ino == input->position.inode)
        input->position.seen_ms = now > input->birth_ms ? now : input->birth_ms;
    return true;
}

/* The file was truncated: what was not yet read may be in a copy (copytruncate). */
static void restart(struct input *input)
{
    const struct position left = input->position;
    int file = follow_find(input->path, &left, left.device, left.inode);

    report(input, LOG_INFO, "input_truncated",
           file >= 0 ? "continuing in its copy" : "reading it from its beginning");
    if (file >= 0) {
        if (attach(input, file, left.offset, left.line, seen_of(file, &left)))
            return;
        close(file);
    }
    (void)open_path(input);
}

/* Whether another file is at the path, and is not empty. */
static bool is_replaced(const struct input *input)
{
    struct stat status;

    return stat(input->path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 &&
           (status.st_dev != input->position.device || status.st_ino != input->position.inode);
}

bool input_open_left(struct input *input, const char *path, const struct position *from)
{
    int file = follow_find(path, from, 0, 0);

    *input = (struct input){.kind = INPUT_FILE, .path = path, .file = -1};
    if (file >= 0 && attach(input, file, from->offset, from->line, seen_of(file, from))) {
        input->is_left = true;
        return true;
    }
    if (file >= 0)
        close(file);
    report(input, LOG_WARNING, "input_replaced", "a rotated file that was still read is gone");
    return false;
}

bool input_open_next(struct input *input, struct input *left)
{
    const int64_t now = moment_now();
    int newest = open_newest(left);
    int64_t seen_ms = now;
    int file;

    *input = (struct input){.kind = INPUT_FILE, .path = left->path, .file = -1};
    if (newest < 0)
        return false;
    /* The newest stays open during the search, as it may be rotated meanwhile. */
    file = follow_next(left->path, left->file, left->position.seen_ms, newest);
    if (file >= 0) {
        report(input, LOG_INFO, "input_rotated", "continuing in the next rotated file");
        seen_ms = left->position.seen_ms;
        close(newest);
    } else {
        file = newest;
    }
    if (attach(input, file, 0, 0, follow_birth(file, seen_ms)))
        return true;
    close(file);
    return false;
}

/* At the end of a followed file: leaves it if it was replaced, and ends once it is quiet. */
static enum input_step follow_on(struct input *input)
{
    if (input->is_eof)
        return INPUT_END;
    input->is_at_end = true;
    if (input->is_left) {
        input->is_eof = clock_ms() >= input->quiet_since + input->quiet_ms;
        return input->is_eof ? INPUT_DATA : INPUT_NOTHING;
    }
    if (!input->may_leave || !is_replaced(input))
        return INPUT_NOTHING;
    report(input, LOG_INFO, "input_rotated",
           "reading the new file, and the old one until it is quiet");
    input->is_left = true;
    input->quiet_since = clock_ms();
    return INPUT_ROTATED;
}

/* All writers of a FIFO have closed it; open it for the next ones. */
static enum input_step reopen_fifo(struct input *input)
{
    int file = open(input->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    input->is_eof = true;
    if (file < 0) {
        report(input, LOG_ERROR, "input_error", strerror(errno));
        return INPUT_END;
    }
    close(input->file);
    input->file = file;
    return INPUT_DATA;
}

/* Makes room at the buffer's end; keeps a tail before the next line, for its checksum. */
static void compact(struct input *input)
{
    size_t kept = input->start < POSITION_TAIL_BYTES ? input->start : POSITION_TAIL_BYTES;
    size_t moved = input->start - kept;

    if (moved == 0)
        return;
    memmove(input->buffer, input->buffer + moved, input->filled - moved);
    input->start -= moved;
    input->filled -= moved;
    input->scanned -= moved;
}

enum input_step input_read(struct input *input)
{
    ssize_t n;

    if (input->file < 0)
        return input->kind == INPUT_FILE && open_path(input) ? INPUT_DATA : INPUT_NOTHING;
    if (input->kind == INPUT_FILE && !is_same(input)) {
        if (input->is_left)
            return INPUT_END;
        restart(input);
        return INPUT_DATA;
    }
    if (input->kind == INPUT_FIFO)
        input->is_eof = false;
    compact(input);
    if (input->kind == INPUT_FILE)
        n = pread(input->file, input->buffer + input->filled, sizeof(input->buffer) - input->filled,
                  (off_t)read_offset(input));
    else
        n = read(input->file, input->buffer + input->filled, sizeof(input->buffer) - input->filled);
    if (n > 0) {
        input->filled += (size_t)n;
        input->is_at_end = false;
        input->quiet_since = clock_ms();
        return INPUT_DATA;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return INPUT_NOTHING;
    if (n < 0)
        report(input, LOG_ERROR, "input_error", strerror(errno));
    if (input->kind == INPUT_FILE)
        return n < 0 ? INPUT_NOTHING : follow_on(input);
    if (input->kind == INPUT_FIFO && n == 0)
        return reopen_fifo(input);
    input->is_eof = true;
    return INPUT_END;
}

/* Removes from the buffer what the current line has beyond INPUT_LINE_BYTES. */
static void skip_rest(struct input *input)
{
    char *rest = input->buffer + input->start + INPUT_LINE_BYTES;
    size_t length = input->filled - input->start - INPUT_LINE_BYTES;
    const char *newline = memchr(rest, '\n', length);
    size_t skipped = newline == NULL ? length : (size_t)(newline - rest) + 1;

    input->is_too_long = true;
    input->has_line_end = newline != NULL;
    input->skipped_bytes += skipped;
    memmove(rest, rest + skipped, length - skipped);
    input->filled -= skipped;
}

/* Finds the current line's length, and its bytes in the buffer; false if it is incomplete. */
static bool find_end(struct input *input, size_t *length, size_t *bytes)
{
    if (!input->is_too_long) {
        const char *newline =
            memchr(input->buffer + input->scanned, '\n', input->filled - input->scanned);
        if (newline != NULL && newline <= input->buffer + input->start + INPUT_LINE_BYTES) {
            *length = (size_t)(newline - input->buffer) - input->start;
            *bytes = *length + 1;
            return true;
        }
        if (newline == NULL)
            input->scanned = input->filled;
    }
    if (!input->has_line_end && input->filled - input->start > INPUT_LINE_BYTES)
        skip_rest(input);
    if (input->is_too_long && !input->has_line_end && !input->is_eof)
        return false;
    *length = *bytes = input->is_too_long ? INPUT_LINE_BYTES : input->filled - input->start;
    return input->is_too_long || (input->is_eof && *length > 0);
}

/* The checksum for a position: of the bytes before the offset, which end at end in the buffer. */
static uint64_t check_tail(const struct input *input, uint64_t offset, size_t end)
{
    size_t length = end < POSITION_TAIL_BYTES ? end : POSITION_TAIL_BYTES;
    char tail[POSITION_TAIL_BYTES];
    int read;

    if (!input->is_too_long)
        return follow_check(input->buffer + end - length, length);
    read = follow_tail(input->file, offset, tail);
    return read < 0 ? 0 : follow_check(tail, (size_t)read);
}

bool input_line(struct input *input, struct input_line *line)
{
    size_t length, bytes;

    if (!find_end(input, &length, &bytes))
        return false;
    *line = (struct input_line){
        .text = input->buffer + input->start,
        .length = length,
        .number = input->position.line + 1,
        .is_too_long = input->is_too_long,
        .bytes = bytes,
    };
    if (length > 0 && line->text[length - 1] == '\r' && !line->is_too_long)
        line->length--;
    if (input->kind == INPUT_FILE) {
        line->position = input->position;
        line->position.offset += bytes + input->skipped_bytes;
        line->position.line++;
        line->position.tail = check_tail(input, line->position.offset, input->start + bytes);
    }
    return true;
}

void input_take(struct input *input, const struct input_line *line)
{
    input->start += line->bytes;
    input->scanned = input->start;
    if (input->kind != INPUT_FILE) {
        input->position.line++;
    } else {
        input->position = line->position;
        /* The buffer before the next line must match the file, for the next checksum. */
        if (line->is_too_long &&
            follow_tail(input->file, input->position.offset,
                        input->buffer + input->start - POSITION_TAIL_BYTES) < 0)
            report(input, LOG_ERROR, "input_error", strerror(errno));
    }
    input->is_too_long = input->has_line_end = false;
    input->skipped_bytes = 0;
}
