#include "database.h"

#include "clock.h"
#include "log.h"
#include "sqlstate.h"

#include <arpa/inet.h>
#include <endian.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_FIRST_MS = 50, /* then doubled */
    BACKOFF_MOST_MS = 1000,
    CONFLICT_RETRIES = 3,
    CONFLICT_PAUSE_MS = 40,
    PARAMETERS_MOST = 4,
    REPORT_BYTES = 200,
};

/* For a socket over TCP. Shorter than the shortest default of patience, query's 2 s. */
static const char TCP_USER_TIMEOUT_MS[] = "1500";

/* Type OIDs never change (src/include/catalog/pg_type.dat). */
static const Oid TYPE_OIDS[] = {
    [DATABASE_TEXT] = 25,
    [DATABASE_TEXT_ARRAY] = 1009,
    [DATABASE_INT4] = 23,
};

struct database {
    const char *name;
    struct database_patience *patience;
    PGconn *connection; /* NULL where there is none; otherwise open, as far as we know */
    PGresult *result;
    char sqlstate[6];            /* of the last statement; "" when it had none */
    const char *channel;         /* to LISTEN on, or NULL */
    bool is_asked;               /* this connection has been told of the channel */
    bool is_unasked_reported;    /* the log has been told that it can't be */
    char reported[REPORT_BYTES]; /* what the log was told of an outage; "" when there is none */
};

/* One call: what it has left of time and tries. */
struct call {
    int64_t patience; /* clock_ms up to which it waits for a connection */
    int64_t deadline; /* clock_ms */
    bool has_turn;    /* it is one of those that may wait */
    int losses;
    int conflicts;
};

enum outcome {
    DONE,
    ERROR, /* the server answered with an error, see sqlstate */
    LOST,  /* the connection is gone, and what became of the statement unknown */
    LATE,  /* no answer before the deadline */
};

static void ignore_notice(void *arg, const char *message)
{
    /* libpq's default writes to stderr what the server says, and so into the middle of our log. */
    (void)arg;
    (void)message;
}

struct database *database_new(const char *name, struct database_patience *patience)
{
    struct database *db = calloc(1, sizeof(*db));

    if (db != NULL) {
        db->name = name;
        db->patience = patience;
    }
    return db;
}

void database_clear(struct database *db)
{
    PQclear(db->result);
    db->result = NULL;
    db->sqlstate[0] = '\0';
}

static void disconnect(struct database *db)
{
    PQfinish(db->connection);
    db->connection = NULL;
    db->is_asked = false;
}

void database_free(struct database *db)
{
    if (db == NULL)
        return;
    database_clear(db);
    disconnect(db);
    free(db);
}

/* Logs that the database is away, once for each cause: the first line of what libpq says of it. */
static void report_away(struct database *db, const char *message)
{
    struct log_line line;
    char detail[REPORT_BYTES];

    snprintf(detail, sizeof(detail), "%.*s", (int)strcspn(message, "\n"), message);
    if (strcmp(detail, db->reported) == 0)
        return;
    memcpy(db->reported, detail, sizeof(detail));
    log_begin(&line, LOG_ERROR, "database_away");
    log_string(&line, "connection", db->name);
    log_string(&line, "detail", detail);
    log_end(&line);
}

static void report_back(struct database *db)
{
    struct log_line line;

    if (db->reported[0] == '\0')
        return;
    db->reported[0] = '\0';
    log_begin(&line, LOG_INFO, "database_back");
    log_string(&line, "connection", db->name);
    log_end(&line);
}

/* Waits for the connection's socket; false at the moment until. */
static bool await(PGconn *connection, short events, int64_t until)
{
    struct pollfd fd = {.fd = PQsocket(connection), .events = events};

    return poll(&fd, 1, clock_left(until)) > 0;
}

/*
 * One attempt to connect. libpq ignores connect_timeout in this mode:
 * tcp_user_timeout is what lets it go on to the next of several hosts.
 */
static bool connect_once(struct database *db, int64_t until)
{
    const char *const keywords[] = {"fallback_application_name", "client_encoding",
                                    "tcp_user_timeout", NULL};
    const char *const values[] = {db->name, "UTF8", TCP_USER_TIMEOUT_MS, NULL};
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    PGconn *connection = PQconnectStartParams(keywords, values, 0);

    if (connection == NULL)
        return false;
    PQsetNoticeProcessor(connection, ignore_notice, NULL);
    if (PQstatus(connection) == CONNECTION_BAD)
        status = PGRES_POLLING_FAILED;
    while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED) {
        if (!await(connection, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, until))
            break;
        status = PQconnectPoll(connection);
    }
    if (status != PGRES_POLLING_OK || PQsetnonblocking(connection, 1) != 0) {
        report_away(db, status == PGRES_POLLING_FAILED ? PQerrorMessage(connection)
                                                       : "no answer in time");
        PQfinish(connection);
        return false;
    }
    db->connection = connection;
    return true;
}

/* Whether the connection still stands, as far as can be told without asking the server. */
static bool is_connected(struct database *db)
{
    if (db->connection == NULL)
        return false;
    /* A server that went away while we were idle has left its farewell, and the end behind it. */
    while (await(db->connection, POLLIN, 0)) {
        if (!PQconsumeInput(db->connection))
            break;
    }
    if (PQstatus(db->connection) == CONNECTION_OK)
        return true;
    disconnect(db);
    return false;
}

/* Makes a call one of those that may wait; false when there are enough of them. */
static bool take_turn(struct database *db, struct call *call)
{
    if (!call->has_turn) {
        call->has_turn = atomic_fetch_add(&db->patience->waiting, 1) < db->patience->most_waiting;
        if (!call->has_turn)
            atomic_fetch_sub(&db->patience->waiting, 1);
    }
    return call->has_turn;
}

static void release_turn(struct database *db, struct call *call)
{
    if (call->has_turn)
        atomic_fetch_sub(&db->patience->waiting, 1);
    call->has_turn = false;
}

/*
 * Sees to a connection. A first, short look is every caller's; to go on
 * looking until patience ends takes a turn. False where there is none.
 */
static bool ensure_connected(struct database *db, struct call *call)
{
    int64_t first_look = clock_ms() + db->patience->look_ms;
    int64_t pause = BACKOFF_FIRST_MS;
    bool is_open = false;

    if (is_connected(db))
        return true;
    if (connect_once(db, first_look < call->deadline ? first_look : call->deadline))
        return true;
    if (clock_left(call->patience) == 0 || !take_turn(db, call))
        return false;
    while (!is_open && clock_left(call->patience) > 0) {
        clock_sleep_jitter(pause < clock_left(call->patience) ? pause : clock_left(call->patience));
        pause = pause * 2 < BACKOFF_MOST_MS ? pause * 2 : BACKOFF_MOST_MS;
        is_open = connect_once(db, call->patience);
    }
    return is_open;
}

/* Sends what libpq holds back for this connection, and takes in what came. */
static enum outcome exchange(PGconn *connection, int64_t deadline)
{
    for (;;) {
        int left = PQflush(connection);

        if (left < 0)
            return LOST;
        if (left == 0 && !PQisBusy(connection))
            return DONE;
        if (!await(connection, left > 0 ? POLLIN | POLLOUT : POLLIN, deadline))
            return LATE;
        if (!PQconsumeInput(connection))
            return LOST;
    }
}

/* Keeps the error of a result; LOST where it says that the connection is going. */
static enum outcome note_error(struct database *db, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    if (sqlstate_classify(sqlstate) == SQLSTATE_LOST)
        return LOST;
    snprintf(db->sqlstate, sizeof(db->sqlstate), "%s", sqlstate);
    return ERROR;
}

/*
 * Reads results up to the end of the statement: its commit is confirmed by the
 * last message, not by the first. Keeps the first error, or the last result.
 */
static enum outcome collect(struct database *db, int64_t deadline)
{
    enum outcome outcome = DONE;

    for (;;) {
        PGresult *result;
        enum outcome exchanged = exchange(db->connection, deadline);

        if (exchanged != DONE)
            return exchanged;
        result = PQgetResult(db->connection);
        if (result == NULL)
            break;
        if (outcome == DONE && PQresultStatus(result) != PGRES_TUPLES_OK &&
            PQresultStatus(result) != PGRES_COMMAND_OK)
            outcome = note_error(db, result);
        PQclear(db->result);
        db->result = result;
    }
    return PQstatus(db->connection) == CONNECTION_OK ? outcome : LOST;
}

/* One try at a statement, on a connection that is open. */
static enum outcome run_once(struct database *db, const char *sql,
                             const struct database_parameter *parameters, int count,
                             int64_t deadline)
{
    Oid types[PARAMETERS_MOST];
    const char *values[PARAMETERS_MOST];
    int lengths[PARAMETERS_MOST];
    int formats[PARAMETERS_MOST];

    for (int i = 0; i < count; i++) {
        types[i] = TYPE_OIDS[parameters[i].type];
        values[i] = parameters[i].value;
        lengths[i] = (int)parameters[i].length;
        formats[i] = 1;
    }
    if (!PQsendQueryParams(db->connection, sql, count, types, values, lengths, formats, 1))
        return LOST;
    return collect(db, deadline);
}

/*
 * Tells a new connection of the channel. A standby or a pooler has no LISTEN;
 * whoever wants to know then has to look.
 */
static enum outcome ask(struct database *db, int64_t deadline)
{
    char sql[80];
    enum outcome outcome;

    if (db->channel == NULL || db->is_asked)
        return DONE;
    snprintf(sql, sizeof(sql), "LISTEN %s", db->channel);
    outcome = run_once(db, sql, NULL, 0, deadline);
    if (outcome == LOST || outcome == LATE)
        return outcome;
    db->is_asked = outcome == DONE;
    if (!db->is_asked && !db->is_unasked_reported)
        log_event(LOG_WARNING, "no_notifications", "this database can't notify; looking instead");
    db->is_unasked_reported = !db->is_asked;
    database_clear(db);
    return DONE;
}

/* What follows from a lost connection: whether to try again, after a pause where it is not the
 * first. */
static bool retry_loss(struct database *db, struct call *call)
{
    int left = clock_left(call->patience);

    report_away(db, "the connection was lost");
    disconnect(db);
    if (left == 0)
        return false;
    if (call->losses++ > 0) {
        /* A server that takes connections and drops each at its statement: that is waiting, too. */
        if (!take_turn(db, call))
            return false;
        clock_sleep_jitter(left < BACKOFF_MOST_MS ? left : BACKOFF_MOST_MS);
    }
    return true;
}

/* What follows from an error: a verdict, or another try after a pause. */
static bool retry_error(struct database *db, struct call *call, enum database_verdict *verdict)
{
    switch (sqlstate_classify(db->sqlstate)) {
    case SQLSTATE_BAD_DATA:
        *verdict = DATABASE_REFUSED;
        return false;
    case SQLSTATE_CONFLICT:
        *verdict = DATABASE_AWAY;
        if (call->conflicts++ == CONFLICT_RETRIES || clock_left(call->deadline) == 0)
            return false;
        clock_sleep_jitter((int64_t)CONFLICT_PAUSE_MS * call->conflicts);
        return true;
    case SQLSTATE_SHORTAGE:
        *verdict = DATABASE_AWAY;
        /* A server that has become read-only stays so: another host may have taken over. */
        if (strcmp(db->sqlstate, "25006") == 0)
            disconnect(db);
        return false;
    default:
        *verdict = DATABASE_FAILED;
        return false;
    }
}

enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline)
{
    struct call call = {.patience = clock_ms() + db->patience->wait_ms, .deadline = deadline};
    enum database_verdict verdict = DATABASE_AWAY;
    bool is_retried = false;

    if (call.patience > deadline)
        call.patience = deadline;
    do {
        enum outcome outcome;

        database_clear(db);
        if (!ensure_connected(db, &call))
            break;
        outcome = ask(db, deadline);
        if (outcome == DONE)
            outcome = run_once(db, sql, parameters, count, deadline);
        if (outcome == DONE || outcome == ERROR)
            report_back(db);

        is_retried = false;
        if (outcome == DONE) {
            verdict = DATABASE_DONE;
        } else if (outcome == ERROR) {
            is_retried = retry_error(db, &call, &verdict);
        } else if (outcome == LOST) {
            is_retried = retry_loss(db, &call);
        } else {
            /* The answer may still come, and would be taken for the next statement's. */
            report_away(db, "no answer before the deadline");
            disconnect(db);
        }
    } while (is_retried);
    release_turn(db, &call);
    return verdict;
}

const char *database_sqlstate(const struct database *db)
{
    return db->sqlstate;
}

int database_rows(const struct database *db)
{
    return PQntuples(db->result);
}

bool database_is_null(const struct database *db, int row, int column)
{
    return PQgetisnull(db->result, row, column) != 0;
}

const char *database_bytes(const struct database *db, int row, int column, size_t *length)
{
    *length = (size_t)PQgetlength(db->result, row, column);
    return PQgetvalue(db->result, row, column);
}

int64_t database_integer(const struct database *db, int row, int column)
{
    const char *value = PQgetvalue(db->result, row, column);
    uint32_t four;
    uint64_t eight;

    if (PQgetlength(db->result, row, column) == (int)sizeof(four)) {
        memcpy(&four, value, sizeof(four));
        return (int32_t)ntohl(four);
    }
    if (PQgetlength(db->result, row, column) != (int)sizeof(eight))
        return 0;
    memcpy(&eight, value, sizeof(eight));
    return (int64_t)be64toh(eight);
}

void database_listen(struct database *db, const char *channel)
{
    db->channel = channel;
}

/* Whether there were notifications among what has been read. */
static bool take_notifications(struct database *db)
{
    bool is_notified = false;
    PGnotify *notification;

    while (db->connection != NULL && (notification = PQnotifies(db->connection)) != NULL) {
        PQfreemem(notification);
        is_notified = true;
    }
    return is_notified;
}

bool database_wait(struct database *db, int stop_fd, int64_t until)
{
    struct pollfd fds[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};

    /* One that came together with the last answer is not in the socket any more. */
    if (take_notifications(db))
        return true;
    if (db->connection != NULL)
        fds[1].fd = PQsocket(db->connection);
    if (poll(fds, 2, clock_left(until)) <= 0 || fds[1].revents == 0)
        return false;
    if (!PQconsumeInput(db->connection) || PQstatus(db->connection) != CONNECTION_OK) {
        report_away(db, "the connection was lost");
        disconnect(db);
        return true;
    }
    return take_notifications(db);
}
