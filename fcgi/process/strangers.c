#include "process/strangers.h"

#include <stdatomic.h>

enum { INTERVAL_MS = 1000 };

static struct {
    atomic_llong next; /* when the kind may have a line again */
    atomic_uint_fast64_t left_out;
} kinds[ERROR_COUNT];

/* Of several threads one takes the line. */
static bool take(enum error error, int64_t now, uint64_t *left_out)
{
    long long next = atomic_load(&kinds[error].next);

    if (now < next || !atomic_compare_exchange_strong(&kinds[error].next, &next, now + INTERVAL_MS))
        return false;
    *left_out = atomic_exchange(&kinds[error].left_out, 0);
    return true;
}

bool strangers_take_line(enum error error, int64_t now, uint64_t *left_out)
{
    if (take(error, now, left_out))
        return true;
    atomic_fetch_add(&kinds[error].left_out, 1);
    return false;
}

bool strangers_take_rest(enum error error, int64_t now, uint64_t *left_out)
{
    int64_t last = atomic_load(&kinds[error].next) - INTERVAL_MS;

    return atomic_load(&kinds[error].left_out) > 0 && now - last >= STRANGERS_REST_MS &&
           take(error, now, left_out);
}
