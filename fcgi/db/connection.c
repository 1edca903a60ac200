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

/* For TCP. Shorter than the shortest default of wait_ms, query.fcgi's 2 s. */
static const char TCP_USER_TIMEOUT_MS[] = "1500";

static void ignore_notice(void *arg, const char *message)
{
    /* libpq's default writes notices to standard error, into the middle of our log. */
    (void)arg;
    (void)message;
}

/* Logs that the database is away, once for each cause: the first line of libpq's message. */
static void log_away(struct connection *connection, const char *message)
{
    struct log_line line;
    char detail[CONNECTION_DETAIL_BYTES];

    snprintf(detail, sizeof(detail), "%.*s", (int)strcspn(message, "\n"), message);
    if (strcmp(detail, connection->logged) == 0)
        return;
    memcpy(connection->logged, detail, strlen(detail) + 1);
    log_begin(&line, LOG_ERROR, "database_away");
    log_string(&line, "connection", connection->name);
    log_string(&line, "detail", detail);
    log_end(&line);
}

void connection_log_back(struct connection *connection)
{
    struct log_line line;

    if (connection->logged[0] == '\0')
        return;
    connection->logged[0] = '\0';
    log_begin(&line, LOG_INFO, "database_back");
    log_string(&line, "connection", connection->name);
    log_end(&line);
}

void connection_drop(struct connection *connection, const char *why)
{
    if (why != NULL)
        log_away(connection, why);
    PQfinish(connection->pg);
    connection->pg = NULL;
    connection->is_listening = false;
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

void connection_note_away(const struct connection *connection, bool is_away)
{
    const struct connection_limits *limits = connection->limits;

    if (limits->note_away != NULL)
        limits->note_away(limits->context, is_away);
}

/*
 * One attempt to connect. It goes on when the time of a first attempt is over: begun anew,
 * it would never reach the second of several hosts. libpq ignores connect_timeout in this
 * mode; tcp_user_timeout makes it go on to the next.
 */
static bool connect_once(struct connection *connection, const struct connection_wait *wait)
{
    const char *const keywords[] = {"fallback_application_name", "client_encoding",
                                    "tcp_user_timeout", NULL};
    const char *const values[] = {connection->name, "UTF8", TCP_USER_TIMEOUT_MS, NULL};
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    PGconn *pg = PQconnectStartParams(keywords, values, 0);
    int64_t until = wait->first;

    if (pg == NULL)
        return false;
    PQsetNoticeProcessor(pg, ignore_notice, NULL);
    if (PQstatus(pg) == CONNECTION_BAD)
        status = PGRES_POLLING_FAILED;
    while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED) {
        if (await(pg, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, until)) {
            status = PQconnectPoll(pg);
        } else if (until < wait->give_up) {
            connection_note_away(connection, true);
            until = wait->give_up;
        } else {
            break;
        }
    }
    if (status != PGRES_POLLING_OK || PQsetnonblocking(pg, 1) != 0 ||
        PQenterPipelineMode(pg) == 0) {
        /* That we stopped waiting is no other cause than the one that is logged already. */
        if (status == PGRES_POLLING_FAILED || *connection->logged == '\0')
            log_away(connection, status == PGRES_POLLING_FAILED
                                     ? PQerrorMessage(pg)
                                     : "the connection attempt timed out");
        PQfinish(pg);
        metrics_add(METRIC_CONNECT_FAILURES, 1);
        connection_note_away(connection, true);
        return false;
    }
    metrics_add(METRIC_RECONNECTS, connection->was_open);
    connection->was_open = true;
    connection->serial++;
    connection->pg = pg;
    return true;
}

/* Whether the connection is still open, as far as can be known without a round trip. */
static bool is_open(struct connection *connection)
{
    if (connection->pg == NULL)
        return false;
    /* A server that went away meanwhile left its last message and the end of the stream. */
    while (await(connection->pg, POLLIN, 0)) {
        if (!PQconsumeInput(connection->pg))
            break;
    }
    if (PQstatus(connection->pg) == CONNECTION_OK)
        return true;
    connection_drop(connection, NULL);
    return false;
}

struct connection_wait connection_begin_wait(const struct connection *connection, int64_t deadline)
{
    int64_t first = clock_ms() + connection->limits->first_connect_ms;
    int64_t give_up = clock_ms() + connection->limits->wait_ms;

    if (connection->give_up != 0 && connection->give_up < give_up)
        give_up = connection->give_up;
    return (struct connection_wait){.first = first < deadline ? first : deadline,
                                    .give_up = give_up < deadline ? give_up : deadline};
}

bool connection_ensure(struct connection *connection, const struct connection_wait *wait)
{
    int64_t pause = BACKOFF_FIRST_MS;
    bool is_connected = is_open(connection) || connect_once(connection, wait);

    while (!is_connected && clock_left(wait->give_up) > 0) {
        clock_sleep_jitter(pause < clock_left(wait->give_up) ? pause : clock_left(wait->give_up));
        pause = pause * 2 < BACKOFF_MOST_MS ? pause * 2 : BACKOFF_MOST_MS;
        is_connected = connect_once(connection, wait);
    }
    return is_connected;
}
