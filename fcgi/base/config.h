/* Configuration: environment variables, and the options that both programs share. */
#ifndef STEEP_CONFIG_H
#define STEEP_CONFIG_H

#include <stdbool.h>

struct config {
    int workers;      /* STEEP_WORKERS: threads, 1 to 256; default 32 */
    int connections;  /* STEEP_CONNECTIONS: to PostgreSQL, 1 to 256; default the cores, 2 or more */
    int deadline_ms;  /* STEEP_DEADLINE: seconds for one request, 2 to 600; default 20 */
    int staleness_ms; /* STEEP_STALENESS: seconds that a standby may lag, 10 to 86400; default 30 */
    int wait_ms;      /* STEEP_DATABASE_WAIT: seconds to wait for an absent database, 0 to 60 */
};

/*
 * Reads the STEEP_* variables; those that are unset or empty have their defaults.
 * wait_seconds is the program's default of STEEP_DATABASE_WAIT. False for an invalid
 * value, after a line in the log that names the variable and its range.
 */
bool config_read(struct config *config, int wait_seconds);

/* Logs that a variable is invalid, and why. Never quotes its value. */
void config_refuse(const char *variable, const char *why);

enum config_action { CONFIG_RUN, CONFIG_TEST, CONFIG_EXIT };

/*
 * Reads the options: none (CONFIG_RUN), -t (CONFIG_TEST), or -V, which prints the
 * version (CONFIG_EXIT, *status 0). Anything else prints the usage (CONFIG_EXIT,
 * *status 2).
 */
enum config_action config_options(int argc, char **argv, const char *program, const char *usage,
                                  int *status);

#endif
