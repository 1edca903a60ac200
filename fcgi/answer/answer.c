#include "answer/answer.h"

#include "answer/sizes.h"
#include "base/clock.h"
#include "http/budget.h"

#include <string.h>

/* How much text is made, compressed and sent at once. */
enum { PART_BYTES = 32 * 1024 };

static const enum size SIZES_LARGE[ANSWER_FORMS] = {
    [ANSWER_PLAIN] = SIZES_LARGE_PLAIN,
    [ANSWER_GZIP] = SIZES_LARGE_GZIP,
};

/* A source has a row for each hour, and so has the total of them all. */
static bool may_be_long(const struct question *asked)
{
    return asked->parameters.source_length == 0 && asked->parameters.grouping != QUERY_BY_HOUR;
}

/* On a standby, the answer is as of what that has seen, whatever the clocks say. */
static void note_seen(struct answer *answer, const struct database *db)
{
    struct timespec *fetched = &answer->fetched_at;
    int64_t seen_us = database_seen_us(db);

    if (seen_us < fetched->tv_sec * INT64_C(1000000) + fetched->tv_nsec / 1000)
        *fetched =
            (struct timespec){.tv_sec = seen_us / 1000000, .tv_nsec = seen_us % 1000000 * 1000};
}

/*
 * A cursor costs a sixth more than a call for the rows of one piece. If there are more rows,
 * that call was made in vain; a question that had more will have more again.
 */
static enum error open_rows(struct answer *answer, struct worker *worker, int64_t deadline)
{
    struct rows_statement statement;
    enum database_verdict verdict = DATABASE_DONE;
    bool otherwise = may_be_long(answer->asked);
    bool is_long = sizes_expect(answer->asked, SIZES_LONG, otherwise);

    rows_ask(&statement, answer->asked);
    if (!is_long) {
        clock_gettime(CLOCK_REALTIME, &answer->fetched_at);
        verdict =
            worker_call(worker, statement.sql, statement.parameters, statement.count, deadline);
        is_long = verdict == DATABASE_DONE && database_rows(worker->db) == DATABASE_PIECE_ROWS;
    }
    if (is_long) {
        clock_gettime(CLOCK_REALTIME, &answer->fetched_at);
        verdict = worker_open(worker, statement.cursor, statement.parameters, statement.count - 1,
                              deadline);
        if (verdict == DATABASE_DONE)
            sizes_note(answer->asked, SIZES_LONG, database_rows(worker->db) == DATABASE_PIECE_ROWS,
                       otherwise);
    }
    if (verdict == DATABASE_DONE)
        note_seen(answer, worker->db);
    return worker_error(verdict);
}

/* Adds the next part of the text; the last part, if there are no more rows. */
static enum error add_text(struct answer *answer, struct worker *worker, int64_t deadline)
{
    while (answer->text.length < PART_BYTES && !answer->is_complete) {
        int count = database_rows(worker->db);

        if (answer->row < count) {
            answer->row = rows_add(&answer->rows, &answer->text, answer->asked, worker->db,
                                   answer->row, PART_BYTES);
        } else if (count == DATABASE_PIECE_ROWS) {
            enum database_verdict verdict = worker_next(worker, deadline);

            if (verdict != DATABASE_DONE)
                return worker_error(verdict);
            answer->row = 0;
        } else {
            rows_end(&answer->rows, &answer->text, answer->asked, &answer->fetched_at);
            answer->is_complete = true;
        }
        if (answer->text.is_short)
            return ERROR_INTERNAL;
    }
    return ERROR_NONE;
}

/* Whether a form takes more text. */
static bool is_growing(const struct answer_text *form)
{
    return form->is_wanted && !form->is_large;
}

static bool are_growing(const struct answer *answer)
{
    return is_growing(&answer->forms[ANSWER_PLAIN]) || is_growing(&answer->forms[ANSWER_GZIP]);
}

/* Moves the text into the forms; false if out of memory. */
static bool pack(struct answer *answer)
{
    struct answer_text *plain = &answer->forms[ANSWER_PLAIN];
    struct answer_text *gzip = &answer->forms[ANSWER_GZIP];

    if (is_growing(gzip) && answer->gzip == NULL) {
        answer->is_small = answer->is_complete && answer->text.length < ANSWER_SMALL_BYTES;
        if (!answer->is_small)
            answer->gzip = gzip_new();
        if (!answer->is_small && answer->gzip == NULL)
            return false;
    }
    if (is_growing(plain) || answer->is_small)
        buffer_add(&plain->body, answer->text.text, answer->text.length);
    if (is_growing(gzip) && !answer->is_small)
        gzip_add(answer->gzip, &gzip->body, answer->text.text, answer->text.length,
                 answer->is_complete);
    buffer_reset(&answer->text);
    return !plain->body.is_short && !gzip->body.is_short;
}

/* Takes what a form has grown from the budget. One for which there is no room is too large. */
static void charge(struct answer_text *form)
{
    if (!is_growing(form))
        return;
    form->is_large =
        form->body.length > ANSWER_WHOLE_BYTES || !budget_resize(form->share, form->body.length);
    if (!form->is_large)
        form->share = form->body.length;
}

static void free_form(struct answer_text *form)
{
    budget_give_back(form->share);
    form->share = 0;
    buffer_free(&form->body);
}

static void note_sizes(const struct answer *answer)
{
    for (int i = 0; i < ANSWER_FORMS; i++) {
        if (answer->forms[i].is_wanted)
            sizes_note(answer->asked, SIZES_LARGE[i], answer->forms[i].is_large, false);
    }
}

enum error answer_build(struct answer *answer, struct worker *worker, const struct question *asked,
                        const bool is_wanted[ANSWER_FORMS], int64_t deadline)
{
    enum error error;

    *answer = (struct answer){.asked = asked};
    for (int i = 0; i < ANSWER_FORMS; i++)
        answer->forms[i].is_wanted = is_wanted[i];
    rows_begin(&answer->text);
    error = open_rows(answer, worker, deadline);
    while (error == ERROR_NONE && !answer->is_complete && are_growing(answer)) {
        error = add_text(answer, worker, deadline);
        if (error == ERROR_NONE && !pack(answer))
            error = ERROR_INTERNAL;
        for (int i = 0; i < ANSWER_FORMS; i++) {
            charge(&answer->forms[i]);
            /* Nobody else is sent its beginning. */
            if (answer->forms[i].is_large && are_growing(answer)) {
                free_form(&answer->forms[i]);
                answer->forms[i].is_dropped = true;
            }
        }
    }
    if (error == ERROR_NONE)
        note_sizes(answer);
    return error;
}

bool answer_was_large(const struct question *asked, enum answer_form form)
{
    return sizes_expect(asked, SIZES_LARGE[form], false);
}

bool answer_is_whole(const struct answer *answer, enum answer_form form)
{
    return answer->is_complete && answer->forms[form].is_wanted && !answer->forms[form].is_large;
}

/* No other form may be whole: there is one connection, which goes on with one of them. */
bool answer_can_stream(const struct answer *answer, enum answer_form form)
{
    return answer->forms[form].is_large && !answer->forms[form].is_dropped &&
           !answer_is_whole(answer, ANSWER_PLAIN) && !answer_is_whole(answer, ANSWER_GZIP);
}

/* What the body of a form is, which a small answer has for all. */
static enum reply_coding coding(const struct answer *answer, enum answer_form form)
{
    if (answer->is_small || (answer->is_complete && form == ANSWER_PLAIN &&
                             answer->forms[form].body.length < ANSWER_SMALL_BYTES))
        return REPLY_UNCODED;
    return form == ANSWER_GZIP ? REPLY_GZIP : REPLY_IDENTITY;
}

bool answer_send(const struct answer *answer, enum answer_form form, struct request *request)
{
    const struct buffer *body =
        &answer->forms[answer->is_small ? (int)ANSWER_PLAIN : (int)form].body;

    return reply_send_coded(request, coding(answer, form), body);
}

/* Sends in small parts, as a peer that goes on reading may take long for the first 8 MiB. */
static bool send_body(struct worker *worker, struct request *request, const struct buffer *body)
{
    bool is_delivered = true;

    for (size_t at = 0; at < body->length && is_delivered; at += PART_BYTES) {
        size_t left = body->length - at;
        const struct buffer part = {.text = body->text + at,
                                    .length = left < PART_BYTES ? left : PART_BYTES};

        is_delivered = reply_add(request, &part);
        worker_note_progress(worker);
    }
    return is_delivered;
}

/* Sends what a form has, and reads and compresses the next part. */
static enum error send_rest(struct answer *answer, struct answer_text *form, struct worker *worker,
                            struct request *request, bool *is_delivered)
{
    for (;;) {
        enum error error;

        *is_delivered = send_body(worker, request, &form->body);
        if (!*is_delivered || answer->is_complete)
            return ERROR_NONE;
        budget_give_back(form->share);
        form->share = 0;
        buffer_reset(&form->body);
        form->is_large = false;
        error = add_text(answer, worker, clock_ms() + worker->config->deadline_ms);
        if (error == ERROR_NONE && !pack(answer))
            error = ERROR_INTERNAL;
        if (error != ERROR_NONE)
            return error;
    }
}

enum error answer_stream(struct answer *answer, enum answer_form form, struct worker *worker,
                         struct request *request, bool *is_delivered)
{
    enum error error = ERROR_NONE;

    answer->forms[form == ANSWER_GZIP ? ANSWER_PLAIN : ANSWER_GZIP].is_wanted = false;
    *is_delivered = reply_begin(request, coding(answer, form));
    if (*is_delivered && !request_is_head(request))
        error = send_rest(answer, &answer->forms[form], worker, request, is_delivered);
    if (error != ERROR_NONE || !*is_delivered)
        request_break(request);
    return error;
}

void answer_free(struct answer *answer)
{
    for (int i = 0; i < ANSWER_FORMS; i++)
        free_form(&answer->forms[i]);
    buffer_free(&answer->text);
    gzip_free(answer->gzip);
    answer->gzip = NULL;
}
