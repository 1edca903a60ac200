/*
 * The sender's state file, which "steep-monitor status" reads: how many events
 * were rejected and dropped, and the last response. Thread-safe.
 */
#ifndef STEEP_MONITOR_STATE_H
#define STEEP_MONITOR_STATE_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { STATE_DETAIL_BYTES = 512 };

struct state {
    int folder;
    pthread_mutex_t lock;
    uint64_t rejected; /* events, over the life of the state folder */
    uint64_t dropped;  /* likewise */
    int last_status;   /* HTTP status of the last response; 0: no response, -1: nothing sent yet */
    int64_t last_time; /* Unix time */
    char last_detail[STATE_DETAIL_BYTES];
};

/* Reads the file; zeros if there is none. Borrows the folder's descriptor. */
void state_init(struct state *state, int folder);
void state_free(struct state *state);

/* Records the last response, and writes the file. */
void state_set_response(struct state *state, int status, const char *detail);

/* Records the totals, and writes the file if they changed. */
void state_set_totals(struct state *state, uint64_t rejected, uint64_t dropped);

/* The status command: prints the state of a folder. Returns the exit status: 1 if it can't be read.
 */
int state_print(const char *path);

#endif
