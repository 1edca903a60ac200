#include "database.h"

#include "clock.h"
#include "log.h"

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
};

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
    const char *channel; /* to LISTEN on, or NULL */
    bool is_asked;       /* this connection has been told of the channel */
    bool is_reported;    /* the log has been told that there is no connection */
};

/* What became of one try. */
enum outcome { DONE, REFUSED, CONFLICT, LOST, LATE, SHORT, FAILED };

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

static void clear(struct database *db)
{
    PQclear(db->result);
    db->result = NULL;
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
    clear(db);
    disconnect(db);
    free(db);
}

/* The first line of what libpq says, which quotes no data: only of connections, never of
 * statements. */
static void report_connection(struct database *db, const char *message)
{
    struct log_line line;

    if (db->is_reported)
        return;
    db->is_reported = true;
    log_begin(&line, LOG_ERROR, "database_away");
    log_bytes(&line, "detail", message, strcspn(message, "\n"));
    log_end(&line);
}

static void report_statement(const char *event, const char *sqlstate)
{
    struct log_line line;

    log_begin(&line, LOG_ERROR, event);
    log_string(&line, "sqlstate", sqlstate != NULL ? sqlstate : "none");
    log_end(&line);
}

/* Waits for the connection's socket; false at the moment until. */
static bool await(PGconn *connection, short events, int64_t until)
{
    struct pollfd fd = {.fd = PQsocket(connection), .events = events};

    return poll(&fd, 1, clock_left(until)) > 0;
}

/* One attempt to connect. */
static bool connect_once(struct database *db, int64_t until)
{
    const char *const keywords[] = {"fallback_application_name", "client_encoding", NULL};
    const char *const values[] = {db->name, "UTF8", NULL};
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
        report_connection(db, status == PGRES_POLLING_FAILED ? PQerrorMessage(connection)
                                                             : "no answer in time");
        PQfinish(connection);
        return false;
    }
    db->connection = connection;
    if (db->is_reported)
        log_event(LOG_INFO, "database_back", db->name);
    db->is_reported = false;
    return true;
}

/* Whether the connection still stands, as far as can be told without asking the server. */
static bool is_connected(struct database *db)
{
    if (db->connection == NULL)
        return false;
    /* A server that went away while we were idle has left its farewell in the socket. */
    if (await(db->connection, POLLIN, 0))
        (void)PQconsumeInput(db->connection);
    if (PQstatus(db->connection) == CONNECTION_OK)
        return true;
    disconnect(db);
    return false;
}

static bool take_turn(struct database_patience *patience)
{
    if (atomic_fetch_add(&patience->waiting, 1) < patience->most_waiting)
        return true;
    atomic_fetch_sub(&patience->waiting, 1);
    return false;
}

/*
 * Sees to a connection. A first, short look is every caller's; to go on
 * looking until patience ends takes a turn. False where there is none.
 */
static bool ensure_connected(struct database *db, int64_t patience, int64_t deadline)
{
    int64_t first_look = clock_ms() + db->patience->look_ms;
    int64_t pause = BACKOFF_FIRST_MS;
    bool is_open = false;

    if (is_connected(db))
        return true;
    if (connect_once(db, first_look < deadline ? first_look : deadline))
        return true;
    if (clock_left(patience) == 0 || !take_turn(db->patience))
        return false;
    while (!is_open && clock_left(patience) > 0) {
        clock_sleep_jitter(pause < clock_left(patience) ? pause : clock_left(patience));
        pause = pause * 2 < BACKOFF_MOST_MS ? pause * 2 : BACKOFF_MOST_MS;
        is_open = connect_once(db, patience);
    }
    atomic_fetch_sub(&db->patience->waiting, 1);
    return is_open;
}

static bool begins_with(const char *sqlstate, const char *class)
{
    return strncmp(sqlstate, class, strlen(class)) == 0;
}

static bool is_one_of(const char *sqlstate, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (begins_with(sqlstate, *list))
            return true;
    }
    return false;
}

/* See PostgreSQL's appendix A. A pooler's or proxy's trouble comes as 08xxx or XX000. */
static enum outcome classify(const char *sqlstate)
{
    static const char *const BAD_DATA[] = {"22", "23502", "23514", "54000", "54001", NULL};
    static const char *const CONFLICTS[] = {"40001", "40P01", NULL};
    static const char *const GONE[] = {"57P01", "57P02", "57P03", "57P05", "08", NULL};
    static const char *const SHORTAGES[] = {"53",    "55P03", "57014", "25006",
                                            "25P03", "58030", "XX000", NULL};

    if (sqlstate == NULL || is_one_of(sqlstate, GONE))
        return LOST;
    if (is_one_of(sqlstate, BAD_DATA))
        return REFUSED;
    if (is_one_of(sqlstate, CONFLICTS))
        return CONFLICT;
    if (is_one_of(sqlstate, SHORTAGES))
        return SHORT;
    return FAILED;
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
        if (outcome != DONE) {
            PQclear(result);
            continue;
        }
        clear(db);
        db->result = result;
        if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
            outcome = classify(PQresultErrorField(result, PG_DIAG_SQLSTATE));
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
    if (outcome != DONE)
        log_event(LOG_WARNING, "no_notifications", "this database can't notify; looking instead");
    db->is_asked = true;
    return DONE;
}

enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline)
{
    int64_t patience = clock_ms() + db->patience->wait_ms;
    int conflicts = 0;
    int losses = 0;

    if (patience > deadline)
        patience = deadline;
    for (;;) {
        enum outcome outcome;

        clear(db);
        if (!ensure_connected(db, patience, deadline))
            return DATABASE_AWAY;
        outcome = ask(db, deadline);
        if (outcome == DONE)
            outcome = run_once(db, sql, parameters, count, deadline);
        switch (outcome) {
        case DONE:
            return DATABASE_DONE;
        case REFUSED:
            return DATABASE_REFUSED;
        case CONFLICT:
            if (conflicts++ == CONFLICT_RETRIES || clock_left(deadline) == 0)
                return DATABASE_AWAY;
            clock_sleep_jitter(CONFLICT_PAUSE_MS * conflicts);
            break;
        case LOST:
            report_connection(db, "the connection was lost");
            disconnect(db);
            if (clock_left(patience) == 0)
                return DATABASE_AWAY;
            /* A server that takes connections and drops each at its statement is not to be rushed.
             */
            if (losses++ > 0)
                clock_sleep_jitter(BACKOFF_MOST_MS);
            break;
        case LATE:
            /* The answer may still come, and would be taken for the next statement's. */
            report_connection(db, "no answer before the deadline");
            disconnect(db);
            return DATABASE_AWAY;
        case SHORT:
            report_statement("database_short", PQresultErrorField(db->result, PG_DIAG_SQLSTATE));
            /* A server that has become read-only stays so: another host may have taken over. */
            if (!strcmp(PQresultErrorField(db->result, PG_DIAG_SQLSTATE), "25006"))
                disconnect(db);
            return DATABASE_AWAY;
        case FAILED:
            report_statement("database_failed", PQresultErrorField(db->result, PG_DIAG_SQLSTATE));
            return DATABASE_FAILED;
        }
    }
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

bool database_wait(struct database *db, int stop_fd, int64_t until)
{
    struct pollfd fds[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    bool is_notified = false;
    PGnotify *notification;

    if (db->connection != NULL)
        fds[1].fd = PQsocket(db->connection);
    if (poll(fds, 2, clock_left(until)) <= 0 || fds[1].revents == 0)
        return false;
    if (!PQconsumeInput(db->connection) || PQstatus(db->connection) != CONNECTION_OK) {
        report_connection(db, "the connection was lost");
        disconnect(db);
        return true;
    }
    while ((notification = PQnotifies(db->connection)) != NULL) {
        PQfreemem(notification);
        is_notified = true;
    }
    return is_notified;
}

static unsigned char *put_int4(unsigned char *out, size_t value)
{
    uint32_t number = htonl((uint32_t)value);

    memcpy(out, &number, sizeof(number));
    return out + sizeof(number);
}

unsigned char *database_text_array(const struct database_slice *texts, size_t count, size_t *length)
{
    enum { HEADER_INTS = 5, DIMENSIONS = 1, LOWER_BOUND = 1 };
    unsigned char *array, *out;
    size_t size = HEADER_INTS * sizeof(uint32_t);

    for (size_t i = 0; i < count; i++)
        size += sizeof(uint32_t) + texts[i].length;
    array = malloc(size);
    if (array == NULL)
        return NULL;
    /* See PostgreSQL's array_recv. */
    out = put_int4(array, DIMENSIONS);
    out = put_int4(out, 0); /* no NULLs */
    out = put_int4(out, TYPE_OIDS[DATABASE_TEXT]);
    out = put_int4(out, count);
    out = put_int4(out, LOWER_BOUND);
    for (size_t i = 0; i < count; i++) {
        out = put_int4(out, texts[i].length);
        memcpy(out, texts[i].text, texts[i].length);
        out += texts[i].length;
    }
    *length = size;
    return array;
}
