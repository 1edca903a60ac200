/* The command line and the environment of steep-monitor; options win. */
#ifndef STEEP_OPTIONS_H
#define STEEP_OPTIONS_H

#include "complete.h"
#include "post.h"

#include <stdbool.h>
#include <stdint.h>

enum { OPTIONS_PATH_BYTES = 4096 };

enum options_command {
    OPTIONS_RUN,
    OPTIONS_TEST,   /* -t */
    OPTIONS_KEYGEN, /* operand: the folder, or NULL */
    OPTIONS_STATUS,
    OPTIONS_EXIT, /* with the status that is given */
};

struct options {
    const char *operand;      /* FILE or DIR; NULL where there is none, or "-" */
    char url[POST_URL_BYTES]; /* with /ingest; empty where STEEP_URL is unset */
    char source[COMPLETE_SOURCE_BYTES + 1];
    char key[OPTIONS_PATH_BYTES];
    char state[OPTIONS_PATH_BYTES];
    const char *authorities; /* NULL: the system's */
    uint64_t spool_bytes;
    bool is_blocking;
    int64_t interval_ms;
    size_t batch_events;
};

/*
 * Reads both. OPTIONS_EXIT comes with *status: 0 after -V and -h, 1 after a line in the log
 * that names what can't be taken, 2 after wrong usage.
 */
enum options_command options_read(struct options *options, int argc, char **argv, int *status);

#endif
