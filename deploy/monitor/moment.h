/* The time of day, and whether it can be believed. */
#ifndef STEEP_MOMENT_H
#define STEEP_MOMENT_H

#include <stdbool.h>
#include <stdint.h>

enum { MOMENT_BOOT_BYTES = 36 };

/* Milliseconds since 1970, and since the machine was booted (CLOCK_BOOTTIME). */
int64_t moment_now(void);
int64_t moment_uptime(void);

/* Whether the clock is set: it is past the day on which the program was built. */
bool moment_is_set(void);

/* Reads the id of this boot (random(4)); "unknown" if it can't be read. */
void moment_boot(char boot[static MOMENT_BOOT_BYTES + 1]);

#endif
