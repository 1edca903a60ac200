/* What the program tells "steep-monitor status", in a small file of the state folder. */
#ifndef STEEP_STATUS_H
#define STEEP_STATUS_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { STATUS_DETAIL_BYTES = 400 };

struct status {
    int folder;
    pthread_mutex_t lock;
    uint64_t set_aside; /* in all */
    uint64_t dropped;   /* in all */
    int last_status;    /* of the last answer; 0: none came; -1: nothing was tried yet */
    int64_t last_time;  /* Unix time */
    char last_detail[STATUS_DETAIL_BYTES];
};

/* Reads what an earlier process left; zeros where there is nothing. Borrows the folder. */
void status_init(struct status *status, int folder);
void status_free(struct status *status);

/* Notes the last answer, and writes the file. */
void status_answer(struct status *status, int code, const char *detail);

/* Notes how much was set aside and dropped, and writes the file if that is news. */
void status_count(struct status *status, uint64_t set_aside, uint64_t dropped);

/* status: prints what is known of a state folder. Exit status: 0, or 1 where it can't be read. */
int status_print(const char *state);

#endif
