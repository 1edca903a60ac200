/*
 * A connection of the load generator, by HTTPS or directly to PostgreSQL. Each
 * is used by one thread.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "bodies.h"

#include <stdbool.h>
#include <stddef.h>

struct answer {
    long long inserted; /* events that the answer acknowledged as new */
    long long rows;     /* rows of a query's answer */
    size_t bytes;
};

/* A request: a batch or a query. */
struct work {
    const struct body *body; /* a batch to store; NULL for a query */
    const char *path;        /* of a query by HTTPS */
    const char *days;        /* of a query to PostgreSQL */
    const char *source;      /* of a query to PostgreSQL; NULL for all */
};

/* send prints an error and returns false unless the request succeeds. */
struct client {
    void *(*open)(void); /* NULL on failure */
    bool (*send)(void *connection, const struct work *work, struct answer *answer);
    void (*close)(void *connection);
};

/* The server at STEEP_URL, with the authority STEEP_CA and the token STEEP_TOKEN. */
extern const struct client CLIENT_HTTPS;

/* The database of the PG* variables. */
extern const struct client CLIENT_DATABASE;

#endif
