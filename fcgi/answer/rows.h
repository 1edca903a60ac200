/*
 * The rows of a question as JSON: what to ask the database, and the text of what it answers.
 * A grouping is a statement, its parameters and its function that writes rows.
 */
#ifndef STEEP_ROWS_H
#define STEEP_ROWS_H

#include "answer/question.h"
#include "base/buffer.h"
#include "db/database.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { ROWS_PARAMETERS_MOST = 5, ROWS_HOUR_BYTES = 80 };

/* The statement of a question. parameters point to the question and to this. */
struct rows_statement {
    const char *sql;    /* for database_call: at most DATABASE_PIECE_ROWS rows */
    const char *cursor; /* for database_open, with one parameter less: all rows */
    struct database_parameter parameters[ROWS_PARAMETERS_MOST];
    int count;
    uint32_t days, most; /* in network byte order */
};

/* Sets the statement of a question, which must outlive it. */
void rows_ask(struct rows_statement *statement, const struct question *asked);

/* How far the text of an answer is; all 0 at first. */
struct rows {
    int64_t count; /* rows written so far */
    /* The members that the rows of one hour share, as a month of ten sources is 7200 rows. */
    int64_t days;
    int64_t hour;
    char hour_text[ROWS_HOUR_BYTES];
    int hour_length;
    int date_length; /* of hour_text up to the hour */
};

/* The text before the rows, and that behind them. */
void rows_begin(struct buffer *out);
void rows_end(const struct rows *rows, struct buffer *out, const struct question *asked,
              const struct timespec *fetched_at);

/*
 * Adds rows that the database has given, from number first on, until out has so many bytes
 * or a row more. Returns the number of the first row that is left.
 */
int rows_add(struct rows *rows, struct buffer *out, const struct question *asked,
             const struct database *db, int first, size_t bytes);

#endif
