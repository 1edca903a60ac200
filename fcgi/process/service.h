/*
 * What the processes of both programs share: options and configuration, a keyring,
 * inherited listeners, worker threads, notifications to the service manager, and
 * a stop that lets the requests in hand finish.
 */
#ifndef STEEP_SERVICE_H
#define STEEP_SERVICE_H

#include "auth/keyring.h"
#include "auth/refresh.h"
#include "process/exposition.h"
#include "process/probe.h"
#include "process/worker.h"

#include <stddef.h>

struct service {
    struct exposition_program program;
    const char *usage;
    int wait_seconds; /* default of STEEP_DATABASE_WAIT */

    /* The variable that may hold credentials, and the function that adds them: see keyring.h. */
    const char *variable;
    const char *(*add_credentials)(struct keyring *keyring, const char *value);
    const struct refresh_plan *plan;
    struct probe_plan probe;

    /* Answers one request: reads it, replies to it and logs it. */
    void (*answer)(struct worker *worker, struct request *request);
};

/*
 * Reads options and environment, and serves on what it inherits (listener.h)
 * until SIGTERM or SIGINT. Returns main's status: EX_CONFIG (sysexits.h) for an
 * invalid setting.
 */
int service_main(const struct service *service, int argc, char **argv);

#endif
