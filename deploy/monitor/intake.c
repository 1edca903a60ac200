#include "intake.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { CHUNKS = 16 }; /* of the input, before others have their turn */

static bool is_blank(const struct input_line *line)
{
    size_t i = 0;

    while (i < line->length && line->text[i] != '\0' && strchr(" \t\r", line->text[i]) != NULL)
        i++;
    return i == line->length;
}

/* Sets a line aside, with a line in the log; false where it can't be written. */
static bool refuse(struct intake *intake, const struct input_line *line, enum error error)
{
    const struct rejected_item item = {
        .code = complete_error_code(error),
        .message = complete_error_message(error),
        .line = line->number,
        .is_cut = line->is_cut,
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

/* Spools a line's event, or sets the line aside and notes that it was read. */
static enum spool_verdict take_line(struct intake *intake, const struct input_line *line)
{
    const char *text = NULL;
    size_t length = 0;
    enum error error = ERROR_INVALID_EVENT;

    if (is_blank(line))
        return SPOOL_WRITTEN;
    if (!line->is_cut)
        error = complete_event(intake->completer, line->text, line->length, &text, &length);
    if (error == ERROR_NONE)
        return spool_append(intake->spool, text, length, &line->position);
    if (error == ERROR_INTERNAL) {
        errno = ENOMEM;
        return SPOOL_FAILED;
    }
    if (!refuse(intake, line, error))
        return SPOOL_FAILED;
    return line->position.inode == 0 ? SPOOL_WRITTEN
                                     : spool_append(intake->spool, NULL, 0, &line->position);
}

/* Says once that input waits, and why. */
static enum intake_step stick(struct intake *intake, enum spool_verdict verdict)
{
    const char *why = verdict == SPOOL_FULL ? "the spool is full" : strerror(errno);
    struct log_line line;

    if (!intake->is_stuck) {
        log_begin(&line, LOG_ERROR, "input_waits");
        log_string(&line, "detail", why);
        log_end(&line);
    }
    intake->is_stuck = true;
    return INTAKE_STUCK;
}

/* Takes the lines that are there, and writes their events. */
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

/* Takes the lines that are there; says where that stops and goes on. */
static enum intake_step settle(struct intake *intake, enum intake_step step)
{
    enum spool_verdict verdict = take_lines(intake);

    if (verdict != SPOOL_WRITTEN)
        return stick(intake, verdict);
    if (intake->is_stuck)
        log_event(LOG_INFO, "input_resumed", "there is room again");
    intake->is_stuck = false;
    return step;
}

enum intake_step intake_run(struct intake *intake, bool is_readable)
{
    const bool is_polled = input_descriptor(intake->input) >= 0;
    enum intake_step step = settle(intake, INTAKE_MORE);

    /* After each read of a descriptor it is polled, lest the next one block. */
    for (int chunk = 0; chunk < (is_polled ? is_readable : CHUNKS) && step == INTAKE_MORE;
         chunk++) {
        switch (input_read(intake->input)) {
        case INPUT_DATA:
            step = settle(intake, INTAKE_MORE);
            break;
        case INPUT_NOTHING:
            return INTAKE_NOTHING;
        case INPUT_END:
            step = settle(intake, INTAKE_END);
            break;
        }
    }
    return step;
}

void intake_end(struct intake *intake, bool is_drained)
{
    if (intake->input->kind != INPUT_FILE && is_drained)
        intake->input->is_ended = true;
    /* A followed file is read again; what came from elsewhere has no other place. */
    if (settle(intake, INTAKE_END) != INTAKE_END && intake->input->kind != INPUT_FILE)
        log_event(LOG_ERROR, "input_lost", "lines that were read could not be kept");
}
