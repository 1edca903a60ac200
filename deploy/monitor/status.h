/* The command "status", and the lock that tells the commands of a running process. */
#ifndef STEEP_STATUS_H
#define STEEP_STATUS_H

#include "store.h"

#include <sys/types.h>

/*
 * Locks a state folder for the life of the process, whose id stands in the file.
 * False with errno; EAGAIN if another process has it.
 */
bool status_lock(int folder) MUST_CHECK;

/* The id of the process that has the lock, 1 if it isn't known; 0 if there is none. */
pid_t status_process(const char *path);

/* Opens the database of a state folder; NULL after a message. */
sqlite3 *status_visit(const char *path, bool is_changed);

/* Prints a message; returns the exit status. */
int status_fail(const char *path, const char *why);

/* Prints the status. Returns the exit status: 1 after a message if the folder can't be read. */
int status_print(const char *path);

#endif
