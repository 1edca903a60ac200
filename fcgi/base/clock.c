#include "base/clock.h"

#include <limits.h>
#include <sodium.h>
#include <time.h>

int64_t clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_ms(void)
{
    return clock_us() / 1000;
}

int clock_left(int64_t until)
{
    int64_t left = until - clock_ms();

    if (left < 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

void clock_sleep_jitter(int64_t ms)
{
    struct timespec pause;

    if (ms <= 0)
        return;
    ms = ms / 2 + (int64_t)randombytes_uniform((uint32_t)(ms / 2 + 1));
    pause.tv_sec = ms / 1000;
    pause.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&pause, NULL);
}

void clock_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until)
{
    const struct timespec limit = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};

    pthread_cond_clockwait(condition, lock, CLOCK_MONOTONIC, &limit);
}

/* By the real-time clock: gcc 12's ThreadSanitizer does not know pthread_clockjoin_np. */
bool clock_join(pthread_t thread, int64_t until)
{
    int left = clock_left(until);
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += left / 1000;
    limit.tv_nsec += left % 1000 * 1000000L;
    if (limit.tv_nsec >= 1000000000L) {
        limit.tv_sec++;
        limit.tv_nsec -= 1000000000L;
    }
    return pthread_timedjoin_np(thread, NULL, &limit) == 0;
}
