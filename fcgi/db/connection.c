#include "db/connection.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
    BACKOFF_FIRST_MS = 50, /* then doubled */
    BACKOFF_MOST_MS = 1000,
};

/* For a socket over TCP. Shorter than the shortest default of patience, query's 2 s. */
static const char TCP_USER_TIMEOUT_MS[] = "1500";

static void ignore_notice(void *arg, const char *message)
{
    /* libpq's default writes to stderr what the server says, and so into the middle of our log. */
    (void)arg;
    (void)message;
}

/* Logs that the database is away, once for each cause: the first line of what libpq says of it. */
static void report_away(struct connection *connection, const char *message)
{
    struct log_line line;
    char detail[CONNECTION_REPORT_BYTES];

    snprintf(detail, sizeof(detail), "%.*s", (int)strcspn(message, "\n"), message);
    if (strcmp(detail, connection->reported) == 0)
        return;
    memcpy(connection->reported, detail, strlen(detail) + 1);
    log_begin(&line, LOG_ERROR, "database_away");
    log_string(&line, "connection", connection->name);
    log_string(&line, "detail", detail);
    log_end(&line);
}

void connection_report_back(struct connection *connection)
{
    struct log_line line;

    if (connection->reported[0] == '\0')
        return;
    connection->reported[0] = '\0';
    log_begin(&line, LOG_INFO, "database_back");
    log_string(&line, "connection", connection->name);
    log_end(&line);
}

void connection_drop(struct connection *connection, const char *why)
{
    if (why != NULL)
        report_away(connection, why);
    PQfinish(connection->pg);
    connection->pg = NULL;
    connection->is_asked = false;
}

static bool await(const PGconn *pg, short events, int64_t until)
{
    struct pollfd fd = {.fd = PQsocket(pg), .events = events};

    return poll(&fd, 1, clock_left(until)) > 0;
}

bool connection_await(const struct connection *connection, short events, int64_t until)
{
    return await(connection->pg, events, until);
}

/*
 * One attempt to connect. libpq ignores connect_timeout in this mode:
 * tcp_user_timeout is what lets it go on to the next of several hosts.
 */
static bool connect_once(struct connection *connection, int64_t until)
{
    const char *const keywords[] = {"fallback_application_name", "client_encoding",
                                    "tcp_user_timeout", NULL};
    const char *const values[] = {connection->name, "UTF8", TCP_USER_TIMEOUT_MS, NULL};
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    PGconn *pg = PQconnectStartParams(keywords, values, 0);

    if (pg == NULL)
        return false;
    PQsetNoticeProcessor(pg, ignore_notice, NULL);
    if (PQstatus(pg) == CONNECTION_BAD)
        status = PGRES_POLLING_FAILED;
    while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED) {
        if (!await(pg, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, until))
            break;
        status = PQconnectPoll(pg);
    }
    if (status != PGRES_POLLING_OK || PQsetnonblocking(pg, 1) != 0) {
        report_away(connection,
                    status == PGRES_POLLING_FAILED ? PQerrorMessage(pg) : "no answer in time");
        PQfinish(pg);
        metrics_add(METRIC_CONNECT_FAILURES, 1);
        return false;
    }
    metrics_add(METRIC_RECONNECTS, connection->was_open);
    connection->was_open = true;
    connection->pg = pg;
    return true;
}

/* Whether the connection still stands, as far as can be told without asking the server. */
static bool is_open(struct connection *connection)
{
    if (connection->pg == NULL)
        return false;
    /* A server that went away while we were idle has left its farewell, and the end behind it. */
    while (await(connection->pg, POLLIN, 0)) {
        if (!PQconsumeInput(connection->pg))
            break;
    }
    if (PQstatus(connection->pg) == CONNECTION_OK)
        return true;
    connection_drop(connection, NULL);
    return false;
}

void connection_begin_wait(struct connection_wait *wait, const struct connection *connection,
                           int64_t deadline)
{
    int64_t patience = clock_ms() + connection->patience->wait_ms;

    *wait = (struct connection_wait){.patience = patience < deadline ? patience : deadline,
                                     .deadline = deadline};
}

bool connection_take_turn(struct connection *connection, struct connection_wait *wait)
{
    struct connection_patience *patience = connection->patience;

    if (!wait->has_turn) {
        wait->has_turn = atomic_fetch_add(&patience->waiting, 1) < patience->most_waiting;
        if (!wait->has_turn)
            atomic_fetch_sub(&patience->waiting, 1);
    }
    return wait->has_turn;
}

void connection_end_wait(struct connection_wait *wait, struct connection *connection)
{
    if (wait->has_turn)
        atomic_fetch_sub(&connection->patience->waiting, 1);
    wait->has_turn = false;
}

bool connection_ensure(struct connection *connection, struct connection_wait *wait)
{
    int64_t first_look = clock_ms() + connection->patience->look_ms;
    int64_t pause = BACKOFF_FIRST_MS;
    bool is_connected = false;

    if (is_open(connection))
        return true;
    if (connect_once(connection, first_look < wait->deadline ? first_look : wait->deadline))
        return true;
    if (clock_left(wait->patience) == 0 || !connection_take_turn(connection, wait))
        return false;
    while (!is_connected && clock_left(wait->patience) > 0) {
        clock_sleep_jitter(pause < clock_left(wait->patience) ? pause : clock_left(wait->patience));
        pause = pause * 2 < BACKOFF_MOST_MS ? pause * 2 : BACKOFF_MOST_MS;
        is_connected = connect_once(connection, wait->patience);
    }
    return is_connected;
}
