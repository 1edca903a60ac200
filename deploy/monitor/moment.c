#include "moment.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const int64_t SECOND = 1000;
static const int64_t DAY = 24 * 3600 * 1000;

static int64_t read_clock(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec / 1000000;
}

int64_t moment_now(void)
{
    return read_clock(CLOCK_REALTIME);
}

int64_t moment_uptime(void)
{
    return read_clock(CLOCK_BOOTTIME);
}

bool moment_is_set(void)
{
    /* The compiler takes the date from SOURCE_DATE_EPOCH if that is set. A day for its time zone.
     */
    static const char BUILT[] = __DATE__;
    struct tm day = {0};

    return strptime(BUILT, "%b %d %Y", &day) == NULL ||
           moment_now() >= (int64_t)timegm(&day) * SECOND - DAY;
}

void moment_boot(char boot[static MOMENT_BOOT_BYTES + 1])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (file == NULL || fgets(boot, MOMENT_BOOT_BYTES + 1, file) == NULL)
        snprintf(boot, MOMENT_BOOT_BYTES + 1, "unknown");
    if (file != NULL)
        fclose(file);
}
