/* The commands "rejected list", "retry" and "discard". */
#ifndef STEEP_REJECTED_H
#define STEEP_REJECTED_H

#include "options.h"

/* Runs the command of the operand; returns the exit status, 1 after a message. */
int rejected_command(const struct options *options);

#endif
