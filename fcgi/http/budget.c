#include "http/budget.h"

#include "base/clock.h"

#include <pthread.h>

/* One that waits, on its caller's stack. */
struct waiter {
    size_t bytes;
    struct waiter *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static size_t taken;
static struct waiter *first; /* in the queue */

static void enqueue(struct waiter *waiter)
{
    struct waiter **link = &first;

    while (*link != NULL)
        link = &(*link)->next;
    *link = waiter;
}

static void dequeue(const struct waiter *waiter)
{
    struct waiter **link = &first;

    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
}

static bool has_room(const struct waiter *waiter)
{
    return first == waiter && waiter->bytes <= BUDGET_BYTES - taken;
}

bool budget_take(size_t bytes, int64_t deadline)
{
    struct waiter waiter = {.bytes = bytes};
    bool is_served;

    if (bytes <= BUDGET_SMALL_BYTES)
        return true;
    pthread_mutex_lock(&lock);
    enqueue(&waiter);
    while (!has_room(&waiter) && clock_left(deadline) > 0)
        clock_wait(&changed, &lock, deadline);
    is_served = has_room(&waiter);
    dequeue(&waiter);
    if (is_served)
        taken += bytes;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return is_served;
}

bool budget_resize(size_t from, size_t to)
{
    size_t before = from > BUDGET_SMALL_BYTES ? from : 0;
    size_t after = to > BUDGET_SMALL_BYTES ? to : 0;
    bool is_served;

    if (before == after)
        return true;
    pthread_mutex_lock(&lock);
    is_served = after <= before || (first == NULL && after - before <= BUDGET_BYTES - taken);
    if (is_served)
        taken = taken - before + after;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return is_served;
}

void budget_give_back(size_t bytes)
{
    (void)!budget_resize(bytes, 0); /* less is always there */
}
