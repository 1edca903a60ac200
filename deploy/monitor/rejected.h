/*
 * Rejected lines and events, in rejected.ndjson: lines that are not valid
 * events, and events that the server refused for good, each with the reason:
 *
 *   {"reason": "code: sentence", "line": 7, "event": "the line, as a string"}
 *   {"reason": "code: sentence", "line": null, "event": {…}}
 *
 * At 16 MiB the file becomes rejected.1.ndjson, in place of an older one.
 */
#ifndef STEEP_REJECTED_H
#define STEEP_REJECTED_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REJECTED_FILE_BYTES = 16 * 1024 * 1024 };

struct rejected {
    int folder;
    pthread_mutex_t lock;
    int file;      /* -1 until something is rejected */
    bool is_dirty; /* not yet synced */
    uint64_t count;
};

struct rejected_item {
    const char *code;
    const char *message;
    uint64_t line;     /* 0 for an event of the spool, which is JSON */
    bool is_truncated; /* the text is only the beginning of the line */
    const char *text;
    size_t length;
};

/* Borrows the folder's descriptor. count: how many were rejected before. */
void rejected_init(struct rejected *rejected, int folder, uint64_t count);
void rejected_free(struct rejected *rejected);

/* Appends one; any thread. False, and logged, if it can't be written. */
bool rejected_add(struct rejected *rejected, const struct rejected_item *item) MUST_CHECK;

/* Syncs the file to disk. */
void rejected_sync(struct rejected *rejected);

bool rejected_is_dirty(struct rejected *rejected);

uint64_t rejected_count(struct rejected *rejected);

#endif
