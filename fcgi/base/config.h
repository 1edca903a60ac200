/* Configuration: the environment and the few options that both programs have. */
#ifndef STEEP_CONFIG_H
#define STEEP_CONFIG_H

#include <stdbool.h>

struct config {
    int workers;     /* STEEP_WORKERS: threads, 1 to 256; default twice the cores, 4 or more */
    int deadline_ms; /* STEEP_DEADLINE: seconds for one request, 2 to 600; default 20 */
    int wait_ms;     /* STEEP_DATABASE_WAIT: seconds to wait for an absent database, 0 to 60 */
};

/*
 * Reads the STEEP_* variables; unset and empty ones have their defaults, of
 * which wait_seconds is the program's own. Returns false after a line in the
 * log that names the variable and says what it takes.
 */
bool config_read(struct config *config, int wait_seconds);

/* Says in the log that a variable's value can't be taken, and why. Never quotes the value. */
void config_refuse(const char *variable, const char *why);

enum config_action { CONFIG_RUN, CONFIG_TEST, CONFIG_EXIT };

/*
 * Reads the options that both programs have: none (CONFIG_RUN), -t
 * (CONFIG_TEST), and -V, which prints the version (CONFIG_EXIT, *status 0).
 * Anything else prints the usage: CONFIG_EXIT with *status 2.
 */
enum config_action config_options(int argc, char **argv, const char *program, const char *usage,
                                  int *status);

#endif
