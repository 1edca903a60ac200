/*
 * The process that both programs are: options and configuration, a keyring,
 * inherited listeners, worker threads, what the service manager is told, and a
 * stop that lets what is in flight finish.
 */
#ifndef STEEP_SERVICE_H
#define STEEP_SERVICE_H

#include "auth/keyring.h"
#include "auth/refresh.h"
#include "base/config.h"
#include "base/log.h"
#include "db/database.h"
#include "http/reply.h"
#include "http/request.h"

#include <stdbool.h>
#include <stddef.h>

/* What one thread has for its requests. config and keyring are all threads'. */
struct worker {
    const struct config *config;
    struct keyring *keyring;
    struct database *db;
    struct reply_text reply;
    void *scratch; /* service->scratch_bytes of it, from one request to the next */
};

struct service {
    const char *name;
    const char *endpoint; /* the path's last part, and what health and metrics call it */
    const char *usage;
    bool takes_batches;
    struct error_range errors; /* those that this program alone can answer */
    int wait_seconds;          /* default of STEEP_DATABASE_WAIT */

    /* The variable that holds credentials, and what takes it: see keyring.h. */
    const char *variable;
    const char *(*add_credentials)(struct keyring *keyring, const char *value);
    const struct refresh_plan *plan;

    size_t scratch_bytes;
    /* Answers one request: reads it, replies to it, and logs it. */
    void (*answer)(struct worker *worker, struct request *request);
};

/*
 * Reads options and environment, and serves on what it inherits (listener.h)
 * until SIGTERM or SIGINT. Returns main's status:
 * EX_CONFIG (sysexits.h) where the environment is refused.
 */
int service_main(const struct service *service, int argc, char **argv);

/* When a request must have its answer from the database (clock_ms). */
int64_t service_deadline(const struct worker *worker, const struct request *request);

/* ERROR_UNAVAILABLE when that has passed in waiting for a worker: the sender has given up. */
enum error service_expect_timely(const struct worker *worker,
                                 const struct request *request) MUST_CHECK;

/* What a verdict of the database means to a client, other than DATABASE_REFUSED: none, 503, 500. */
enum error service_error(enum database_verdict verdict);

/* Counts a request whose reply was just sent. */
void service_count(const struct worker *worker, const struct request *request, enum error error);

/* The line that each request leaves in the log: what both programs say first, and what last. */
void service_log_begin(struct log_line *line, const char *event, const struct worker *worker,
                       const struct request *request, enum error error);
void service_log_end(struct log_line *line, const struct request *request, bool is_heard);

#endif
