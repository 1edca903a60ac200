/*
 * A thread that cancels the statements of late connections (database_is_late), one after the
 * other. It is apart because a frozen server may let a cancel request wait without end.
 */
#ifndef STEEP_CANCELLER_H
#define STEEP_CANCELLER_H

#include "base/attributes.h"
#include "db/database.h"

#include <stdbool.h>

struct canceller;

/*
 * Starts the thread, for at most so many connections. It calls give_back, with context and
 * without a lock, for each that it has tried to cancel, which may still be late. NULL if out
 * of memory or of threads.
 */
struct canceller *canceller_new(int connections,
                                void (*give_back)(void *context, struct database *db),
                                void *context) MUST_CHECK;

/* Lends it a connection until give_back. */
void canceller_add(struct canceller *canceller, struct database *db);

/*
 * Ends the thread and frees it; NULL is allowed. False if it still waits for the server: then
 * neither it nor the connections may be freed.
 */
bool canceller_free(struct canceller *canceller) MUST_CHECK;

#endif
