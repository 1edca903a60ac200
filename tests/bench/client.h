/*
 * One connection of the load generator, over HTTPS or straight to PostgreSQL.
 * Each is used by one thread.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "bodies.h"

#include <stdbool.h>
#include <stddef.h>

struct answer {
    long long inserted; /* events that the answer acknowledged as new */
    long long rows;     /* aggregates in the answer */
    size_t bytes;
};

/* What a request asks for: one of the four. */
struct work {
    const struct body *body; /* a batch to store; NULL for a question */
    const char *path;        /* of a question by HTTPS */
    const char *days;        /* of a question to PostgreSQL */
    const char *source;      /* NULL for all */
};

/* send returns false, with a line on standard error, for anything but a success. */
struct client {
    void *(*open)(void); /* NULL when it fails */
    bool (*send)(void *connection, const struct work *work, struct answer *answer);
    void (*close)(void *connection);
};

/* The server of STEEP_URL, trusted by STEEP_CA, with the token STEEP_TOKEN. */
extern const struct client CLIENT_HTTPS;

/* The database of the PG* variables. */
extern const struct client CLIENT_DATABASE;

#endif
