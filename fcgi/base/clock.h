/* Monotonic time, for deadlines and durations. */
#ifndef STEEP_CLOCK_H
#define STEEP_CLOCK_H

#include <stdint.h>

int64_t clock_ms(void);
int64_t clock_us(void);

/* Milliseconds from now to a moment of clock_ms, 0 when it has passed; fits poll(2). */
int clock_left(int64_t until);

/* Sleeps for a random time from half of ms to ms milliseconds, so that callers do not stay in step.
 */
void clock_sleep_jitter(int64_t ms);

#endif
