/* How the statements of one request ended: for its line in the log, and the counters. */
#ifndef STEEP_RECORD_H
#define STEEP_RECORD_H

#include "db/database.h"
#include "db/sqlstate.h"

#include <stdbool.h>
#include <stdint.h>

enum { RECORD_REQUEST_BYTES = 64 };

struct record {
    char request[RECORD_REQUEST_BYTES + 1]; /* its id, or "" */
    char sqlstate[SQLSTATE_BYTES + 1];      /* of its last statement that failed; "" for none */
    bool is_reported; /* the leader of its group has PostgreSQL log that failure */
    int64_t spent_us; /* in its statements, waits included; -1: it had none */
};

/* Begins a record. The id is copied; one that is too long counts as none. */
void record_begin(struct record *record, const char *id);

/* Adds a statement: how it ended, its SQLSTATE ("" for none), and its time. */
void record_add(struct record *record, enum database_verdict verdict, const char *sqlstate,
                int64_t spent_us);

#endif
