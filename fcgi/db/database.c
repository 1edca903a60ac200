#include "db/database.h"

#include "base/clock.h"
#include "base/log.h"
#include "db/sqlstate.h"

#include <arpa/inet.h>
#include <endian.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFLICT_RETRIES = 3,
    CONFLICT_PAUSE_MS = 40,
    LOSS_PAUSE_MS = 1000,
    PARAMETERS_MOST = 4,
    STATEMENT_BYTES = 512, /* longer than any of ours */
};

/* Type OIDs never change (src/include/catalog/pg_type.dat). */
static const Oid TYPE_OIDS[] = {
    [DATABASE_TEXT] = 25,
    [DATABASE_TEXT_ARRAY] = 1009,
    [DATABASE_INT4] = 23,
};

struct database {
    struct connection connection;
    PGresult *result;
    char sqlstate[DATABASE_SQLSTATE_BYTES + 1]; /* of the last statement; "" for none */
    const char *channel;                        /* to LISTEN on, or NULL */
    bool is_polling_logged;                     /* the log has the line that LISTEN failed */
};

enum outcome {
    DONE,
    ERROR, /* the server answered with an error, see sqlstate */
    LOST,  /* the connection is gone, and the statement's outcome unknown */
    LATE,  /* no answer before the deadline */
};

struct database *database_new(const char *name, struct connection_limits *limits)
{
    struct database *db = calloc(1, sizeof(*db));

    if (db != NULL) {
        db->connection.name = name;
        db->connection.limits = limits;
    }
    return db;
}

void database_clear(struct database *db)
{
    PQclear(db->result);
    db->result = NULL;
    db->sqlstate[0] = '\0';
}

void database_record_begin(struct database_record *record, const char *id)
{
    static const char PLAIN[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-";
    size_t length = strspn(id, PLAIN);

    *record = (struct database_record){.spent_us = -1};
    if (length <= DATABASE_REQUEST_BYTES && id[length] == '\0')
        memcpy(record->request, id, length);
}

void database_free(struct database *db)
{
    if (db == NULL)
        return;
    database_clear(db);
    connection_drop(&db->connection, NULL);
    free(db);
}

/* Sends what libpq still holds for this connection, and reads the answer. */
static enum outcome exchange(const struct connection *connection, int64_t deadline)
{
    for (;;) {
        int left = PQflush(connection->pg);

        if (left < 0)
            return LOST;
        if (left == 0 && !PQisBusy(connection->pg))
            return DONE;
        if (!connection_await(connection, left > 0 ? POLLIN | POLLOUT : POLLIN, deadline))
            return LATE;
        if (!PQconsumeInput(connection->pg))
            return LOST;
    }
}

/* Keeps the error of a result; LOST if it says that the connection is closing. */
static enum outcome note_error(struct database *db, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    snprintf(db->sqlstate, sizeof(db->sqlstate), "%s", sqlstate != NULL ? sqlstate : "");
    return sqlstate_classify(sqlstate) == SQLSTATE_LOST ? LOST : ERROR;
}

/*
 * Reads results up to the end of the statement: the last message confirms its commit,
 * not the first. Keeps the first error, or the last result.
 */
static enum outcome collect(struct database *db, int64_t deadline)
{
    enum outcome outcome = DONE;

    for (;;) {
        PGresult *result;
        enum outcome exchanged = exchange(&db->connection, deadline);

        if (exchanged != DONE)
            return exchanged;
        result = PQgetResult(db->connection.pg);
        if (result == NULL)
            break;
        if (outcome == DONE && PQresultStatus(result) != PGRES_TUPLES_OK &&
            PQresultStatus(result) != PGRES_COMMAND_OK)
            outcome = note_error(db, result);
        PQclear(db->result);
        db->result = result;
    }
    return PQstatus(db->connection.pg) == CONNECTION_OK ? outcome : LOST;
}

/* One try at a statement, on a connection that is open. */
static enum outcome run_once(struct database *db, const struct database_record *record,
                             const char *sql, const struct database_parameter *parameters,
                             int count, int64_t deadline)
{
    Oid types[PARAMETERS_MOST];
    const char *values[PARAMETERS_MOST];
    int lengths[PARAMETERS_MOST];
    int formats[PARAMETERS_MOST];
    char text[STATEMENT_BYTES];

    for (int i = 0; i < count; i++) {
        types[i] = TYPE_OIDS[parameters[i].type];
        values[i] = parameters[i].value;
        lengths[i] = (int)parameters[i].length;
        formats[i] = 1;
    }
    if (record != NULL && *record->request != '\0') {
        snprintf(text, sizeof(text), "%s /* request %s */", sql, record->request);
        sql = text;
    }
    if (!PQsendQueryParams(db->connection.pg, sql, count, types, values, lengths, formats, 1))
        return LOST;
    return collect(db, deadline);
}

/* Listens on a new connection. A standby or a pooler has no LISTEN: the caller then polls. */
static enum outcome start_listening(struct database *db, int64_t deadline)
{
    char sql[80];
    enum outcome outcome;

    if (db->channel == NULL || db->connection.is_listening)
        return DONE;
    snprintf(sql, sizeof(sql), "LISTEN %s", db->channel);
    outcome = run_once(db, NULL, sql, NULL, 0, deadline);
    if (outcome == LOST || outcome == LATE)
        return outcome;
    db->connection.is_listening = outcome == DONE;
    if (!db->connection.is_listening && !db->is_polling_logged)
        log_event(LOG_WARNING, "no_notifications", "LISTEN failed; polling instead");
    db->is_polling_logged = !db->connection.is_listening;
    database_clear(db);
    return DONE;
}

/* After a lost connection: whether to try again, which only the first time is at once. */
static bool retry_loss(struct database *db, struct connection_wait *wait, int *losses)
{
    int left = clock_left(wait->give_up);

    connection_drop(&db->connection, "the connection was lost");
    if (left == 0)
        return false;
    if ((*losses)++ > 0) {
        /* Lost twice without an error: the statement itself may crash its backend. */
        if (*db->sqlstate == '\0')
            return false;
        /* The server takes connections and drops each at its statement: waiting for it takes a
         * turn. */
        if (!connection_take_turn(&db->connection, wait))
            return false;
        clock_sleep_jitter(left < LOSS_PAUSE_MS ? left : LOSS_PAUSE_MS);
    }
    return true;
}

/* After an error: a verdict (false), or another try after a pause (true). */
static bool retry_error(struct database *db, int64_t deadline, int *conflicts,
                        enum database_verdict *verdict)
{
    switch (sqlstate_classify(db->sqlstate)) {
    case SQLSTATE_BAD_DATA:
        *verdict = DATABASE_REFUSED;
        return false;
    case SQLSTATE_CONFLICT:
        *verdict = DATABASE_AWAY;
        if ((*conflicts)++ == CONFLICT_RETRIES || clock_left(deadline) == 0)
            return false;
        clock_sleep_jitter((int64_t)CONFLICT_PAUSE_MS * *conflicts);
        return true;
    case SQLSTATE_SHORTAGE:
        *verdict = DATABASE_AWAY;
        /* The server became read-only and will stay so: another host may have taken over. */
        if (strcmp(db->sqlstate, "25006") == 0)
            connection_drop(&db->connection, NULL);
        return false;
    default:
        *verdict = DATABASE_FAILED;
        return false;
    }
}

/* Adds a call to the request's record. */
static void keep_record(struct database_record *record, const struct database *db,
                        enum database_verdict verdict, int64_t spent_us)
{
    if (record == NULL)
        return;
    if (verdict != DATABASE_DONE)
        memcpy(record->sqlstate, db->sqlstate, sizeof(record->sqlstate));
    record->spent_us = (record->spent_us > 0 ? record->spent_us : 0) + spent_us;
}

enum database_verdict database_call(struct database *db, struct database_record *record,
                                    const char *sql, const struct database_parameter *parameters,
                                    int count, int64_t deadline)
{
    struct connection_wait wait;
    enum database_verdict verdict = DATABASE_AWAY;
    int64_t begun = clock_us();
    int losses = 0;
    int conflicts = 0;
    bool is_retried = false;

    connection_begin_wait(&wait, &db->connection, deadline);
    do {
        enum outcome outcome;

        database_clear(db);
        if (!connection_ensure(&db->connection, &wait))
            break;
        outcome = start_listening(db, deadline);
        if (outcome == DONE)
            outcome = run_once(db, record, sql, parameters, count, deadline);
        if (outcome == DONE || outcome == ERROR)
            connection_log_back(&db->connection);

        is_retried = false;
        if (outcome == DONE) {
            verdict = DATABASE_DONE;
        } else if (outcome == ERROR) {
            is_retried = retry_error(db, deadline, &conflicts, &verdict);
        } else if (outcome == LOST) {
            is_retried = retry_loss(db, &wait, &losses);
        } else {
            /* A late answer would be taken for that of the next statement. */
            connection_drop(&db->connection, "no answer before the deadline");
        }
    } while (is_retried);
    connection_end_wait(&wait, &db->connection);
    keep_record(record, db, verdict, clock_us() - begun);
    return verdict;
}

void database_log_failure(struct database *db, const struct database_record *record,
                          int64_t deadline)
{
    const struct database_parameter parameters[] = {
        {DATABASE_TEXT, record->request, strlen(record->request)},
        {DATABASE_TEXT, record->sqlstate, strlen(record->sqlstate)},
    };

    if (*record->sqlstate == '\0' || *record->request == '\0' || db->connection.pg == NULL)
        return;
    /* If this fails too, the program's own log still has the same. */
    (void)!database_call(db, NULL, "SELECT public.log_failure($1, $2)", parameters, 2, deadline);
}

const char *database_sqlstate(const struct database *db)
{
    return db->sqlstate;
}

bool database_lacks_shard(const struct database *db)
{
    return strcmp(db->sqlstate, "XX000") == 0 &&
           strstr(PQresultErrorMessage(db->result), "Hash function returned NULL") != NULL;
}

void database_disconnect(struct database *db)
{
    connection_drop(&db->connection, NULL);
    db->connection.was_open = false;
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

/* Whether notifications were among the messages read so far. */
static bool take_notifications(const struct database *db)
{
    bool is_notified = false;
    PGnotify *notification;

    while (db->connection.pg != NULL && (notification = PQnotifies(db->connection.pg)) != NULL) {
        PQfreemem(notification);
        is_notified = true;
    }
    return is_notified;
}

bool database_wait(struct database *db, int stop_fd, int64_t until)
{
    struct pollfd fds[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};

    /* One that came together with the last answer is no longer in the socket. */
    if (take_notifications(db))
        return true;
    if (db->connection.pg != NULL)
        fds[1].fd = PQsocket(db->connection.pg);
    if (poll(fds, 2, clock_left(until)) <= 0 || fds[1].revents == 0)
        return false;
    if (!PQconsumeInput(db->connection.pg) || PQstatus(db->connection.pg) != CONNECTION_OK) {
        connection_drop(&db->connection, "the connection was lost");
        return true;
    }
    return take_notifications(db);
}
