#include "process/results.h"

#include <stdatomic.h>

enum {
    ENOUGH_FAILURES = 3,
    /* Longer than the probe takes to fail twice. */
    RECENT_MS = 15000,
};

static atomic_uint_fast64_t failures; /* since the last success */
static atomic_llong failed_at;
static atomic_llong succeeded_at;

void results_note(enum error error, int64_t now)
{
    if (error == ERROR_NONE) {
        atomic_store(&succeeded_at, now);
        atomic_store(&failures, 0);
    } else if (error == ERROR_UNAVAILABLE || error == ERROR_INTERNAL) {
        atomic_store(&failed_at, now);
        atomic_fetch_add(&failures, 1);
    }
}

bool results_last_failed(void)
{
    return atomic_load(&failures) > 0;
}

bool results_all_failed(int64_t now)
{
    uint64_t few = atomic_load(&succeeded_at) == 0 ? 1 : ENOUGH_FAILURES;

    return atomic_load(&failures) >= few && now - atomic_load(&failed_at) <= RECENT_MS;
}

int64_t results_succeeded_at(void)
{
    return atomic_load(&succeeded_at);
}
