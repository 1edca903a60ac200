#include "process/results.h"

#include <stdatomic.h>

enum {
    ENOUGH_FAILURES = 3,
    /* Longer than the probe takes to fail twice. */
    RECENT_MS = 15000,
};

static atomic_uint_fast64_t failures; /* since the last success that counted */
static atomic_bool probe_failed;      /* since then */
static atomic_bool last_failed;
static atomic_llong failed_at;
static atomic_llong succeeded_at;

static bool is_failure(enum error error)
{
    return error == ERROR_UNAVAILABLE || error == ERROR_INTERNAL;
}

static void note_success(int64_t now)
{
    atomic_store(&succeeded_at, now);
    atomic_store(&last_failed, false);
}

void results_note(enum error error, int64_t now)
{
    if (error == ERROR_NONE) {
        note_success(now);
        atomic_store(&probe_failed, false);
        atomic_store(&failures, 0);
    } else if (is_failure(error)) {
        atomic_store(&failed_at, now);
        atomic_store(&last_failed, true);
        atomic_fetch_add(&failures, 1);
    }
}

void results_note_probe(enum error error, int64_t now)
{
    if (error == ERROR_NONE && !atomic_load(&probe_failed)) {
        note_success(now);
        return;
    }
    if (is_failure(error))
        atomic_store(&probe_failed, true);
    results_note(error, now);
}

bool results_last_failed(void)
{
    return atomic_load(&last_failed);
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
