/* The command line and the environment of steep-monitor; options override variables. */
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
    OPTIONS_REJECTED, /* operand: list, retry or discard */
    OPTIONS_EXIT,     /* with *status */
};

struct options {
    const char *operand;      /* FILE or DIR; NULL if missing or "-" */
    char url[POST_URL_BYTES]; /* with /ingest; empty if STEEP_URL is unset */
    char source[COMPLETE_SOURCE_BYTES + 1];
    char key[OPTIONS_PATH_BYTES];
    char state[OPTIONS_PATH_BYTES];
    const char *ca_file; /* NULL: the system's authorities */
    uint64_t spool_bytes;
    bool is_blocking;
    int64_t quiet_ms; /* after which a rotated file is closed */
    int64_t interval_ms;
    size_t batch_events;
};

/*
 * Sets *status if it returns OPTIONS_EXIT: 0 after -V and -h, 1 after it logged
 * an invalid setting, 2 after it printed the usage.
 */
enum options_command options_read(struct options *options, int argc, char **argv, int *status);

#endif
