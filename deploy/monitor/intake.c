#include "intake.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_READS = 16, /* of a followed file, in one call of intake_run */
    END_FLUSHES = 8,
};

struct input *intake_input(const struct intake *intake)
{
    return intake->inputs[intake->count - 1];
}

/* Makes another input, the last; NULL without memory or room. */
static struct input *add_input(struct intake *intake)
{
    struct input *input = intake->count < INTAKE_INPUTS ? calloc(1, sizeof(*input)) : NULL;

    if (input != NULL)
        intake->inputs[intake->count++] = input;
    return input;
}

static void remove_input(struct intake *intake, size_t index)
{
    input_close(intake->inputs[index]);
    free(intake->inputs[index]);
    intake->count--;
    for (size_t i = index; i < intake->count; i++)
        intake->inputs[i] = intake->inputs[i + 1];
}

bool intake_open(struct intake *intake, const char *path)
{
    struct position positions[INTAKE_INPUTS] = {{0}};
    size_t count = spool_positions(intake->spool, positions, INTAKE_INPUTS);
    struct input *input;

    /* All but the last were left. */
    for (size_t i = 0; i + 1 < count && path != NULL; i++) {
        input = add_input(intake);
        if (input == NULL || !input_open_left(input, path, &positions[i]))
            intake->count -= input != NULL;
    }
    input = add_input(intake);
    if (input == NULL || !input_open(input, path, &positions[count > 0 ? count - 1 : 0]))
        return false;
    /* Another kind of input than before. */
    while (input->kind != INPUT_FILE && intake->count > 1)
        remove_input(intake, 0);
    for (size_t i = 0; i < intake->count; i++)
        intake->inputs[i]->quiet_ms = intake->quiet_ms;
    return true;
}

void intake_close(struct intake *intake)
{
    while (intake->count > 0)
        remove_input(intake, 0);
}

static bool is_blank(const struct input_line *line)
{
    size_t i = 0;

    while (i < line->length && line->text[i] != '\0' && strchr(" \t\r", line->text[i]) != NULL)
        i++;
    return i == line->length;
}

static void log_rejected(const struct input_line *line, enum error error)
{
    struct log_line log;

    log_begin(&log, LOG_WARNING, "input_rejected");
    log_number(&log, "line", (long long)line->number);
    log_string(&log, "error", complete_error_code(error));
    log_string(&log, "detail", complete_error_message(error));
    log_end(&log);
}

/* Completes a line's event, or else the item has the error. */
static void complete_line(struct intake *intake, struct spool_item *item)
{
    const int64_t now = moment_now();
    struct completed completed;

    item->time = now;
    item->error = complete_event(intake->completer, item->text, item->length,
                                 intake->is_clock_set ? now : 0, &completed);
    if (item->error != ERROR_NONE)
        return;
    item->text = completed.text;
    item->length = completed.length;
    item->has_source = completed.has_source;
    item->has_timestamp = completed.has_timestamp;
    if (!completed.has_timestamp)
        item->time = moment_uptime();
}

/* The positions behind the lines that were taken; returns their number. */
static size_t get_positions(const struct intake *intake,
                            struct position positions[static INTAKE_INPUTS])
{
    size_t count = 0;

    for (size_t i = 0; i < intake->count; i++) {
        if (intake->inputs[i]->kind == INPUT_FILE && intake->inputs[i]->position.inode != 0)
            positions[count++] = intake->inputs[i]->position;
    }
    return count;
}

static enum spool_verdict flush(struct intake *intake)
{
    struct position positions[INTAKE_INPUTS];
    const size_t count = get_positions(intake, positions);
    enum spool_verdict verdict;

    verdict = spool_flush(intake->spool, positions, count,
                          intake->is_ending && intake_input(intake)->kind != INPUT_FILE);
    if (verdict == SPOOL_TAKEN)
        intake->is_changed = false;
    return verdict;
}

/* Adds an item, after a flush if there is no room for it. */
static enum spool_verdict add(struct intake *intake, const struct spool_item *item)
{
    struct position positions[INTAKE_INPUTS];

    spool_mark(intake->spool, positions, get_positions(intake, positions));
    if (!spool_add(intake->spool, item)) {
        enum spool_verdict verdict = flush(intake);

        if (verdict != SPOOL_TAKEN)
            return verdict;
        if (!spool_add(intake->spool, item))
            return SPOOL_FAILED;
    }
    intake->is_changed = true;
    return SPOOL_TAKEN;
}

/* Adds a line's event, or the line as a rejected one. */
static enum spool_verdict take_line(struct intake *intake, const struct input_line *line)
{
    struct spool_item item = {.line = line->number, .text = line->text, .length = line->length};
    enum spool_verdict verdict;

    if (is_blank(line))
        return SPOOL_TAKEN;
    item.error = ERROR_INVALID_EVENT;
    if (!line->is_too_long)
        complete_line(intake, &item);
    else
        item.time = moment_now();
    if (item.error == ERROR_INTERNAL)
        return SPOOL_FAILED;
    verdict = add(intake, &item);
    if (verdict == SPOOL_TAKEN && item.error != ERROR_NONE)
        log_rejected(line, item.error);
    return verdict;
}

/* Pauses the input unless all was taken, or resumes it; logs this once. False: it is paused. */
static bool go_on(struct intake *intake, enum spool_verdict verdict)
{
    const bool is_paused = verdict != SPOOL_TAKEN;
    struct log_line line;

    if (is_paused && !intake->is_paused) {
        log_begin(&line, LOG_ERROR, "input_paused");
        log_string(&line, "detail",
                   verdict == SPOOL_FULL ? "the spool is full" : intake->spool->pause);
        log_end(&line);
    } else if (!is_paused && intake->is_paused) {
        log_event(LOG_INFO, "input_resumed", "the spool accepts events again");
    }
    intake->is_paused = is_paused;
    return !is_paused;
}

bool intake_commit(struct intake *intake)
{
    return go_on(intake, flush(intake));
}

/* Takes all complete lines of an input; false if it has to pause. */
static bool take_lines(struct intake *intake, struct input *input)
{
    enum spool_verdict verdict = intake->is_paused ? flush(intake) : SPOOL_TAKEN;
    struct input_line line;

    intake->is_clock_set = moment_is_set();
    while (verdict == SPOOL_TAKEN && input_line(input, &line)) {
        verdict = take_line(intake, &line);
        if (verdict == SPOOL_TAKEN)
            input_take(input, &line);
    }
    return go_on(intake, verdict);
}

/* Reads an input once and takes its lines. */
static enum intake_step read_once(struct intake *intake, size_t index)
{
    struct input *input = intake->inputs[index];
    struct input *next;

    input->may_leave = intake->count < INTAKE_INPUTS;
    switch (input_read(input)) {
    case INPUT_DATA:
        return take_lines(intake, input) ? INTAKE_MORE : INTAKE_PAUSED;
    case INPUT_NOTHING:
        return INTAKE_NOTHING;
    case INPUT_ROTATED:
        next = add_input(intake);
        if (next != NULL && input_open_next(next, input)) {
            next->quiet_ms = intake->quiet_ms;
            return INTAKE_MORE;
        }
        if (next != NULL)
            remove_input(intake, intake->count - 1);
        input->is_left = false;
        return INTAKE_NOTHING;
    default:
        if (!take_lines(intake, input))
            return INTAKE_PAUSED;
        if (!input->is_left)
            return INTAKE_END;
        intake->is_changed = true; /* its position goes */
        remove_input(intake, index);
        return INTAKE_MORE;
    }
}

enum intake_step intake_run(struct intake *intake, bool is_readable)
{
    const bool is_polled = input_descriptor(intake_input(intake)) >= 0;
    enum intake_step result = INTAKE_NOTHING;

    for (size_t i = 0; i < intake->count; i++) {
        enum intake_step step = take_lines(intake, intake->inputs[i]) ? INTAKE_MORE : INTAKE_PAUSED;
        const size_t count = intake->count;

        /* A polled descriptor is read once, as a second read might block. */
        for (int reads = 0; reads < (is_polled ? is_readable : MAX_READS) && step == INTAKE_MORE &&
                            intake->count == count;
             reads++)
            step = read_once(intake, i);
        if (step == INTAKE_PAUSED || step == INTAKE_END)
            return step;
        if (step == INTAKE_MORE)
            result = INTAKE_MORE;
        if (intake->count < count)
            i--;
    }
    return result;
}

void intake_end(struct intake *intake, bool is_drained)
{
    struct input *input = intake_input(intake);
    const bool is_stream = input->kind != INPUT_FILE;
    bool is_taken = false;

    if (is_stream && is_drained)
        input->is_eof = true;
    /* The lines of a followed file are read again by the next process; others are lost. */
    for (int tries = 0; tries < END_FLUSHES && !is_taken; tries++) {
        if (!go_on(intake, flush(intake)))
            break;
        is_taken = take_lines(intake, input) && !intake->is_changed;
    }
    if (is_stream && !(is_taken && is_drained))
        log_event(LOG_ERROR, "input_lost",
                  "lost lines that were not read, or could not be written to the spool");
}
