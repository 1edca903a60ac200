/* Files that must be whole after a crash. */
#ifndef STEEP_FILES_H
#define STEEP_FILES_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Writes all of the bytes, at an offset or, with -1, at the file's own. False with errno. */
bool files_write(int file, const void *bytes, size_t length, off_t offset) MUST_CHECK;

/*
 * Replaces a file of a folder by these bytes, in one step: after a crash there
 * is the old content or the new. With is_durable it is on the disk when this
 * returns. False with errno, and the old file stays, or the new one is not known
 * to be on the disk.
 */
bool files_replace(int folder, const char *name, const void *bytes, size_t length,
                   bool is_durable) MUST_CHECK;

/*
 * Reads a small file whole and ends it with a NUL; at most size - 1 bytes.
 * -1 with errno where it can't be read, EFBIG where it is larger.
 */
ssize_t files_read(int folder, const char *name, char *text, size_t size);

/*
 * Finds a line "name=digits" in a text, and reads its decimal number. False
 * where there is none.
 */
bool files_number(const char *text, const char *name, uint64_t *number) MUST_CHECK;

/* Opens a folder, which is made with mode 0700 where it is missing. -1 with errno. */
int files_open_folder(int parent, const char *name);

/* The same with all folders above it that are missing. */
int files_open_path(const char *path);

#endif
