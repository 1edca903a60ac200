/* A temporary folder for tests that write files; a file in it captures standard error. */
#ifndef STEEP_UNIT_FOLDER_H
#define STEEP_UNIT_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

/* cmocka's set-up and tear-down: a new folder for each test, in memory if possible. */
int folder_make(void **state);
int folder_remove(void **state);

/* Its path, and its descriptor. */
const char *folder_path(void);
int folder_file(void);

/* Removes all files of the folder but the log. */
void folder_empty(void);

void folder_write(const char *name, const void *bytes, size_t length);

/* Reads a whole file; returns its length. */
size_t folder_read(const char *name, void *bytes, size_t size);

/* Whether the log has a text since the last folder_forget_log. */
bool folder_logged(const char *text);
void folder_forget_log(void);

#endif
