/* Folders and files. */
#ifndef STEEP_FILES_H
#define STEEP_FILES_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Writes all bytes, at an offset or, for -1, at the file's current one. False with errno. */
bool files_write(int file, const void *bytes, size_t length, off_t offset) MUST_CHECK;

/* Opens a folder, creating it with mode 0700 if it is missing. -1 with errno. */
int files_open_folder(int parent, const char *name);

/* The same, and creates missing parents. */
int files_open_path(const char *path);

#endif
