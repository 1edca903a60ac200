#include "db/connection.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "db/hosts.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
    BACKOFF_FIRST_MS = 50, /* then doubled */
    BACKOFF_MOST_MS = 1000,
    LOOK_MS = 500,             /* between looks whether the host was left */
    STANDBY_MISSED_MS = 10000, /* then it is looked for again */
    PRIMARY_MISSED_MS = 2000,  /* the same, less than the time between two reads of credentials */
};

/* For TCP. Shorter than the shortest default of wait_ms, query.fcgi's 2 s. */
static const char TCP_USER_TIMEOUT_MS[] = "1500";

/*
 * libpq's default writes notices to standard error, into the middle of our log. One matters:
 * a commit whose wait for a synchronous standby was cancelled is only reported by a warning.
 * That has no SQLSTATE of its own, and its text is translated.
 */
static void take_notice(void *arg, const PGresult *notice)
{
    struct connection *connection = arg;
    const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);

    if (function != NULL && strcmp(function, "SyncRepWaitForLSN") == 0)
        connection->unreplicated++;
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

bool connection_is_on_standby(const struct connection *connection)
{
    const char *status = PQparameterStatus(connection->pg, "in_hot_standby");

    return status != NULL && strcmp(status, "on") == 0;
}

bool connection_is_left(const struct connection *connection)
{
    return hosts_count() > 1 && hosts_is_left(connection->host, connection->epoch);
}

bool connection_await(const struct connection *connection, short events, int64_t until)
{
    if (hosts_count() == 1)
        return await(connection->pg, events, until);
    while (!connection_is_left(connection)) {
        int64_t next = clock_ms() + LOOK_MS;

        if (await(connection->pg, events, next < until ? next : until))
            return true;
        if (clock_left(until) == 0)
            return false;
    }
    return false;
}

void connection_note_away(const struct connection *connection, bool is_away)
{
    const struct connection_limits *limits = connection->limits;

    if (limits->note_away != NULL)
        limits->note_away(limits->context, is_away);
}

/* One attempt to connect: how far it is. */
struct attempt {
    const struct connection_wait *wait;
    int64_t until;     /* clock_ms: the end of all */
    int64_t host_ms;   /* for one host, so that there is time for the others */
    bool is_timed_out; /* the last host */
    bool is_other;     /* the last host is not what was wanted */
    bool silent[HOSTS_MOST];
    char message[CONNECTION_DETAIL_BYTES]; /* of the first host that failed; "" for none */
};

/*
 * Waits for the socket until the host's time is over. The attempt goes on when the time of a
 * first attempt is over: begun anew, it would never reach the second of several hosts.
 */
static bool await_host(const struct connection *connection, const PGconn *pg,
                       PostgresPollingStatusType status, struct attempt *attempt, int64_t limit)
{
    for (;;) {
        int64_t until = attempt->until < limit ? attempt->until : limit;

        if (await(pg, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, until))
            return true;
        if (clock_left(limit) == 0 || attempt->until >= attempt->wait->give_up)
            return false;
        connection_note_away(connection, true);
        attempt->until = attempt->wait->give_up;
    }
}

/*
 * Connects to a host; NULL if it can't. libpq ignores connect_timeout in this mode;
 * tcp_user_timeout makes it go on to the next address of the same host.
 */
static PGconn *connect_host(struct connection *connection, const struct hosts_choice *choice,
                            struct attempt *attempt)
{
    const char *const keywords[] = {"fallback_application_name",
                                    "client_encoding",
                                    "tcp_user_timeout",
                                    "host",
                                    "hostaddr",
                                    "port",
                                    "target_session_attrs",
                                    NULL};
    const char *const values[] = {connection->name, "UTF8",       TCP_USER_TIMEOUT_MS, choice->name,
                                  choice->address,  choice->port, choice->attributes,  NULL};
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    int64_t limit = clock_ms() + attempt->host_ms;
    PGconn *pg = PQconnectStartParams(keywords, values, 0);

    attempt->is_timed_out = false;
    attempt->is_other = false;
    if (pg == NULL)
        return NULL;
    PQsetNoticeReceiver(pg, take_notice, connection);
    if (PQstatus(pg) == CONNECTION_BAD)
        status = PGRES_POLLING_FAILED;
    while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED && !attempt->is_timed_out) {
        if (await_host(connection, pg, status, attempt, limit))
            status = PQconnectPoll(pg);
        else
            attempt->is_timed_out = true;
    }
    attempt->silent[choice->host] = attempt->is_timed_out && clock_left(limit) == 0;
    if (status == PGRES_POLLING_OK && PQsetnonblocking(pg, 1) == 0 && PQenterPipelineMode(pg) != 0)
        return pg;
    /* The server told it before libpq refused it for its kind. */
    attempt->is_other = PQparameterStatus(pg, "server_version") != NULL;
    if (attempt->message[0] == '\0')
        snprintf(attempt->message, sizeof(attempt->message), "%s",
                 attempt->is_timed_out ? "the connection attempt timed out" : PQerrorMessage(pg));
    PQfinish(pg);
    return NULL;
}

/* One attempt: the hosts in their order, until one has what is wanted. */
static bool connect_once(struct connection *connection, const struct connection_wait *wait)
{
    struct hosts_choice choices[HOSTS_CHOICES_MOST];
    int count = hosts_choose(choices, connection->limits->prefers_primary);
    int64_t now = clock_ms();
    int64_t all_ms = (wait->give_up > wait->first ? wait->give_up : wait->first) - now;
    int64_t host_ms = all_ms / hosts_count();
    struct attempt attempt = {.wait = wait,
                              .until = wait->first > now ? wait->first : wait->give_up,
                              .host_ms = hosts_count() == 1          ? INT32_MAX
                                         : host_ms < HOSTS_ANSWER_MS ? host_ms
                                                                     : HOSTS_ANSWER_MS};
    PGconn *pg = NULL;

    for (int i = 0; i < count && pg == NULL; i++) {
        if (attempt.silent[choices[i].host])
            continue;
        if (i > 0 && clock_left(attempt.until) == 0)
            break;
        connection->host = choices[i].host;
        connection->is_second = choices[i].is_second;
        connection->is_for_standby =
            choices[i].attributes != NULL && strcmp(choices[i].attributes, "standby") == 0;
        connection->epoch = hosts_epoch(connection->host);
        pg = connect_host(connection, &choices[i], &attempt);
        if (pg != NULL) {
            hosts_note_answer(&choices[i]);
        } else if (attempt.silent[choices[i].host]) {
            hosts_note_silence(choices[i].host);
        } else if (attempt.is_other) {
            hosts_note_other(choices[i].host);
        }
    }
    if (pg == NULL) {
        /* That we stopped waiting is no other cause than the one that is logged already. */
        if (!attempt.is_timed_out || *connection->logged == '\0')
            log_away(connection, attempt.message);
        metrics_add(METRIC_CONNECT_FAILURES, 1);
        connection_note_away(connection, true);
        return false;
    }
    metrics_add(METRIC_RECONNECTS, connection->was_open);
    connection->was_open = true;
    connection->serial++;
    connection->made_at = clock_ms();
    connection->pg = pg;
    return true;
}

/* Whether another host is to be used meanwhile. A standby may have been promoted. */
static bool is_outdated(const struct connection *connection)
{
    int64_t most_ms = connection->limits->prefers_primary ? PRIMARY_MISSED_MS : STANDBY_MISSED_MS;
    bool is_other = connection->is_second ||
                    (connection->is_for_standby && !connection_is_on_standby(connection));

    return connection_is_left(connection) ||
           (is_other && clock_ms() - connection->made_at > most_ms);
}

/* Whether the connection is still open, as far as can be known without a round trip. */
static bool is_open(struct connection *connection)
{
    if (connection->pg == NULL)
        return false;
    if (is_outdated(connection)) {
        connection_drop(connection, NULL);
        connection->was_open = false;
        return false;
    }
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
