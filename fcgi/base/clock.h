/* Monotonic time, for deadlines and durations. */
#ifndef STEEP_CLOCK_H
#define STEEP_CLOCK_H

#include "base/attributes.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

int64_t clock_ms(void);
int64_t clock_us(void);

/* Milliseconds from now to a moment of clock_ms, 0 when it has passed; fits poll(2). */
int clock_left(int64_t until);

/* Sleeps for a random time from ms / 2 to ms milliseconds, so that callers do not stay in step. */
void clock_sleep_jitter(int64_t ms);

/* Waits for a condition, until a moment of clock_ms at most. */
void clock_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until);

/* Joins a thread; false if it still runs at a moment of clock_ms. */
bool clock_join(pthread_t thread, int64_t until) MUST_CHECK;

#endif
