/*
 * The answer to a question as it is built: whole, in the forms that are wanted, as long as
 * each has at most ANSWER_WHOLE_BYTES and the budget (http/budget.h) has room for it. One
 * that is larger can be sent in parts while the rest is read.
 */
#ifndef STEEP_ANSWER_H
#define STEEP_ANSWER_H

#include "answer/rows.h"
#include "base/error.h"
#include "http/gzip.h"
#include "http/reply.h"
#include "process/worker.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
    ANSWER_WHOLE_BYTES = 8 * 1024 * 1024,
    /* A smaller one is not worth compressing. */
    ANSWER_SMALL_BYTES = 1024,
};

enum answer_form { ANSWER_PLAIN, ANSWER_GZIP, ANSWER_FORMS };

struct answer {
    const struct question *asked;
    struct timespec fetched_at;
    struct rows rows;
    int row; /* the next one of those that the database gave last */
    bool is_complete;
    bool is_small;      /* it has the plain form only */
    struct buffer text; /* what is not in the forms yet */
    struct gzip *gzip;
    struct answer_text {
        bool is_wanted;
        bool is_large;      /* too large to be kept whole: body is its beginning */
        bool is_dropped;    /* and that was freed */
        struct buffer body; /* what was added since, of an answer that is streamed */
        size_t share;       /* of the budget, in bytes */
    } forms[ANSWER_FORMS];
};

/*
 * Begins the answer to a question, which must outlive it, in the forms that are wanted, and
 * builds it before deadline (clock_ms). The worker then has a connection, and the rest of the
 * rows is still to be read unless is_complete; it stops when no wanted form may grow.
 *
 * ERROR_UNAVAILABLE or ERROR_INTERNAL: it failed, see the worker's record.
 */
enum error answer_build(struct answer *answer, struct worker *worker, const struct question *asked,
                        const bool is_wanted[ANSWER_FORMS], int64_t deadline) MUST_CHECK;

/* Whether a form was too large to be built whole when the question was last asked. */
bool answer_was_large(const struct question *asked, enum answer_form form) MUST_CHECK;

/* Whether a form is there and whole. */
bool answer_is_whole(const struct answer *answer, enum answer_form form) MUST_CHECK;

/* Whether answer_stream can send a form: all that there is of it is still there. */
bool answer_can_stream(const struct answer *answer, enum answer_form form) MUST_CHECK;

/* Sends a whole form; false if the client has left. */
bool answer_send(const struct answer *answer, enum answer_form form, struct request *request);

/*
 * Sends a form in parts, and reads the rest of the rows meanwhile; the other form is given up.
 * nginx and the database may each take STEEP_DEADLINE for a part. A HEAD request gets the
 * headers alone. is_delivered is false if the client left. Then, or after an error (that of
 * answer_build), the exchange was broken off.
 */
enum error answer_stream(struct answer *answer, enum answer_form form, struct worker *worker,
                         struct request *request, bool *is_delivered) MUST_CHECK;

/* Frees what it has. */
void answer_free(struct answer *answer);

#endif
