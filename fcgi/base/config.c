#include "base/config.h"

#include "base/log.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void config_refuse(const char *variable, const char *why)
{
    struct log_line line;

    log_begin(&line, LOG_ERROR, "configuration");
    log_string(&line, "variable", variable);
    log_string(&line, "detail", why);
    log_end(&line);
}

/* Reads an integer of a range; false, after a line in the log, for anything else. */
static bool read_number(const char *variable, int least, int most, int *value)
{
    const char *text = getenv(variable);
    char *end;
    long number;

    if (text == NULL || *text == '\0')
        return true;
    errno = 0;
    number = strtol(text, &end, 10);
    if (strspn(text, "0123456789") != strlen(text) || errno != 0 || number < least ||
        number > most) {
        char why[80];

        snprintf(why, sizeof(why), "must be a whole number from %d to %d", least, most);
        config_refuse(variable, why);
        return false;
    }
    *value = (int)number;
    return true;
}

/* The cores that this process may use, from 2 to 256. */
static int default_connections(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return cores < 2 ? 2 : cores > 256 ? 256 : cores;
}

bool config_read(struct config *config, int wait_seconds)
{
    int workers = 32;
    int connections = default_connections();
    int deadline_seconds = 20;
    int staleness_seconds = 30;

    if (!read_number("STEEP_WORKERS", 1, 256, &workers) ||
        !read_number("STEEP_CONNECTIONS", 1, 256, &connections) ||
        !read_number("STEEP_DEADLINE", 2, 600, &deadline_seconds) ||
        !read_number("STEEP_STALENESS", 10, 86400, &staleness_seconds) ||
        !read_number("STEEP_DATABASE_WAIT", 0, 60, &wait_seconds))
        return false;
    config->workers = workers;
    config->connections = connections;
    config->deadline_ms = deadline_seconds * 1000;
    config->staleness_ms = staleness_seconds * 1000;
    config->wait_ms = wait_seconds * 1000;
    return true;
}

enum config_action config_options(int argc, char **argv, const char *program, const char *usage,
                                  int *status)
{
    *status = 0;
    if (argc == 1)
        return CONFIG_RUN;
    if (argc == 2 && strcmp(argv[1], "-t") == 0)
        return CONFIG_TEST;
    if (argc == 2 && strcmp(argv[1], "-V") == 0) {
        printf("%s (steep) %s\n", program, STEEP_VERSION);
        return CONFIG_EXIT;
    }
    fputs(usage, stderr);
    *status = 2;
    return CONFIG_EXIT;
}
