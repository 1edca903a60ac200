/*
 * A request for an answer, and the ways in which it ends: each of them sends the reply, counts
 * and logs the request, and ends the exchange with nginx.
 */
#ifndef STEEP_QUERY_H
#define STEEP_QUERY_H

#include "answer/answer.h"
#include "answer/question.h"
#include "answer/shared.h"
#include "auth/keyring.h"
#include "base/error.h"
#include "http/request.h"
#include "process/worker.h"

#include <stdbool.h>
#include <stdint.h>

/* A request, and what its answer and its line in the log need to know of it. */
struct query {
    struct shared_member member; /* while it is parked; comes first */
    struct request *request;
    struct question asked;
    enum answer_form form;
    int64_t deadline; /* clock_ms */
    int64_t rows;
    bool is_known;                       /* the token */
    char label[KEYRING_LABEL_BYTES + 1]; /* the known token's */
};

/* Refuses it with an error. */
void query_refuse(struct worker *worker, const struct query *query, enum error error);

/* Sends it an answer whose form is whole. */
void query_send(struct worker *worker, struct query *query, const struct answer *answer);

/*
 * Streams it an answer that can be (answer_can_stream), and gives the connection to the database
 * back. The caller has a turn (answer/turns.h).
 */
void query_stream(struct worker *worker, struct query *query, struct answer *answer);

#endif
