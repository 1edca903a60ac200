/*
 * The threads that answer requests: each accepts a connection, answers it, and
 * comes back for the next one.
 */
#ifndef STEEP_WORKERS_H
#define STEEP_WORKERS_H

#include "process/service.h"

#include <stdbool.h>
#include <stdint.h>

struct workers;

/*
 * Starts config->workers threads that take requests off a non-blocking
 * listener until stop_fd is readable, and then finish what they have in hand.
 * NULL where they can't be started, after a line in the log. All that is
 * pointed to must outlive them.
 */
struct workers *workers_start(const struct service *service, const struct config *config,
                              struct keyring *keyring, int listener, int stop_fd);

int workers_count(const struct workers *workers);

/* How many of them have a request in hand. */
int workers_busy(const struct workers *workers);

/* For how long the slowest of these has been at it, in milliseconds; 0 where there is none. */
int64_t workers_longest_ms(const struct workers *workers);

/* Waits for their end until a moment of clock_ms; false where some go on. May be called again. */
bool workers_join(struct workers *workers, int64_t until) __attribute__((warn_unused_result));

/* Frees what has been joined; takes NULL. */
void workers_free(struct workers *workers);

#endif
