#include "intake.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { MAX_READS = 16 }; /* of a followed file, in one call of intake_run */

static bool is_blank(const struct input_line *line)
{
    size_t i = 0;

    while (i < line->length && line->text[i] != '\0' && strchr(" \t\r", line->text[i]) != NULL)
        i++;
    return i == line->length;
}

/* Writes a line to rejected.ndjson and logs it; false if it can't be written. */
static bool reject(struct intake *intake, const struct input_line *line, enum error error)
{
    const struct rejected_item item = {
        .code = complete_error_code(error),
        .message = complete_error_message(error),
        .line = line->number,
        .is_truncated = line->is_too_long,
        .text = line->text,
        .length = line->length,
    };
    struct log_line log;

    if (!rejected_add(intake->rejected, &item))
        return false;
    log_begin(&log, LOG_WARNING, "input_rejected");
    log_number(&log, "line", (long long)line->number);
    log_string(&log, "error", item.code);
    log_string(&log, "detail", item.message);
    log_end(&log);
    return true;
}

/* Appends a line's event to the spool, or rejects the line and records that it was read. */
static enum spool_verdict take_line(struct intake *intake, const struct input_line *line)
{
    const char *text = NULL;
    size_t length = 0;
    enum error error = ERROR_INVALID_EVENT;

    if (is_blank(line))
        return SPOOL_WRITTEN;
    if (!line->is_too_long)
        error = complete_event(intake->completer, line->text, line->length, &text, &length);
    if (error == ERROR_NONE)
        return spool_append(intake->spool, text, length, &line->position);
    if (error == ERROR_INTERNAL) {
        errno = ENOMEM;
        return SPOOL_FAILED;
    }
    if (!reject(intake, line, error))
        return SPOOL_FAILED;
    return line->position.inode == 0 ? SPOOL_WRITTEN
                                     : spool_append(intake->spool, NULL, 0, &line->position);
}

/* Pauses the input, and logs why once. */
static enum intake_step pause_input(struct intake *intake, enum spool_verdict verdict)
{
    const char *why = verdict == SPOOL_FULL ? "the spool is full" : strerror(errno);
    struct log_line line;

    if (!intake->is_paused) {
        log_begin(&line, LOG_ERROR, "input_paused");
        log_string(&line, "detail", why);
        log_end(&line);
    }
    intake->is_paused = true;
    return INTAKE_PAUSED;
}

/* Takes all complete lines, and writes their events. */
static enum spool_verdict take_lines(struct intake *intake)
{
    struct input_line line;

    while (input_line(intake->input, &line)) {
        enum spool_verdict verdict = take_line(intake, &line);

        if (verdict != SPOOL_WRITTEN)
            return verdict;
        input_take(intake->input, &line);
    }
    return spool_flush(intake->spool);
}

/* The same; pauses or resumes the input. Returns the step given, or INTAKE_PAUSED. */
static enum intake_step take_in(struct intake *intake, enum intake_step step)
{
    enum spool_verdict verdict = take_lines(intake);

    if (verdict != SPOOL_WRITTEN)
        return pause_input(intake, verdict);
    if (intake->is_paused)
        log_event(LOG_INFO, "input_resumed", "the spool accepts events again");
    intake->is_paused = false;
    return step;
}

enum intake_step intake_run(struct intake *intake, bool is_readable)
{
    const bool is_polled = input_descriptor(intake->input) >= 0;
    enum intake_step step = take_in(intake, INTAKE_MORE);

    /* A polled descriptor is read once, as a second read might block. */
    for (int reads = 0; reads < (is_polled ? is_readable : MAX_READS) && step == INTAKE_MORE;
         reads++) {
        switch (input_read(intake->input)) {
        case INPUT_DATA:
            step = take_in(intake, INTAKE_MORE);
            break;
        case INPUT_NOTHING:
            return INTAKE_NOTHING;
        case INPUT_END:
            step = take_in(intake, INTAKE_END);
            break;
        }
    }
    return step;
}

void intake_end(struct intake *intake, bool is_drained)
{
    if (intake->input->kind != INPUT_FILE && is_drained)
        intake->input->is_eof = true;
    /* The lines of a followed file are read again by the next process; others are lost. */
    if (take_in(intake, INTAKE_END) != INTAKE_END && intake->input->kind != INPUT_FILE)
        log_event(LOG_ERROR, "input_lost", "lost lines that could not be written to the spool");
}
