/* Files that must be complete after a crash. */
#ifndef STEEP_FILES_H
#define STEEP_FILES_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Writes all bytes, at an offset or, for -1, at the file's current one. False with errno. */
bool files_write(int file, const void *bytes, size_t length, off_t offset) MUST_CHECK;

/*
 * Replaces a file atomically: after a crash it has the old content or the new.
 * is_durable: sync it as well. False with errno if it was not replaced, or not
 * synced.
 */
bool files_replace(int folder, const char *name, const void *bytes, size_t length,
                   bool is_durable) MUST_CHECK;

/*
 * Reads a file of at most size - 1 bytes, and adds a NUL. Returns its length, or
 * -1 with errno; EFBIG if it is larger.
 */
ssize_t files_read(int folder, const char *name, char *text, size_t size);

/* Finds a line "name=digits" in a text and parses its number. False if there is none. */
bool files_number(const char *text, const char *name, uint64_t *number) MUST_CHECK;

/* Opens a folder, creating it with mode 0700 if it is missing. -1 with errno. */
int files_open_folder(int parent, const char *name);

/* The same, and creates missing parents. */
int files_open_path(const char *path);

#endif
