#include "db/database.h"

#include "base/clock.h"
#include "base/log.h"
#include "db/hosts.h"
#include "db/sqlstate.h"
#include "db/statement.h"

#include <arpa/inet.h>
#include <endian.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFLICT_RETRIES = 3,
    CONFLICT_PAUSE_MS = 40,
    LOSS_PAUSE_MS = 1000,
    CLOSE_MS = 1000,
    STALE_RETRIES = 2,
};

static const char READ_ONLY[] = "25006";

struct database {
    struct connection connection;
    struct statement statement; /* the last one */
    const char *channel;        /* to LISTEN on, or NULL */
    bool is_polling_logged;     /* the log has the line that LISTEN failed */
    bool is_late;               /* an answer is still to come */
    int open_on;                /* the serial of the connection with a cursor; 0 for none */
};

/* What to run, and how. */
struct plan {
    const char *sql;
    const struct database_parameter *parameters;
    int count;
    bool is_cursor;
    int idle_ms; /* of a cursor */
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

void database_free(struct database *db)
{
    if (db == NULL)
        return;
    statement_clear(&db->statement);
    connection_drop(&db->connection, NULL);
    free(db);
}

/* Listens on a new connection, where that is possible: else the caller polls. */
static enum statement_outcome start_listening(struct database *db, int64_t deadline)
{
    char sql[80];
    enum statement_outcome outcome;

    if (db->channel == NULL || db->connection.is_listening)
        return STATEMENT_DONE;
    /* A standby has no LISTEN, and would log an error each time. */
    if (connection_is_on_standby(&db->connection))
        return STATEMENT_DONE;
    snprintf(sql, sizeof(sql), "LISTEN %s", db->channel);
    outcome = statement_run(&db->statement, &db->connection, sql, NULL, 0, deadline);
    if (outcome == STATEMENT_LOST || outcome == STATEMENT_LATE)
        return outcome;
    db->connection.is_listening = outcome == STATEMENT_DONE;
    if (!db->connection.is_listening && !db->is_polling_logged)
        log_event(LOG_WARNING, "no_notifications", "LISTEN failed; polling instead");
    db->is_polling_logged = !db->connection.is_listening;
    statement_clear(&db->statement);
    return STATEMENT_DONE;
}

/* The tries of one call. */
struct tries {
    struct connection_wait wait;
    int64_t deadline;
    int losses;
    int conflicts;
    int stale;
};

/* After a lost connection: whether to try again, which only the first time is at once. */
static bool retry_loss(struct database *db, struct tries *tries)
{
    int left = clock_left(tries->wait.give_up);

    if (connection_is_left(&db->connection)) {
        /* Time went by without an answer, and another host serves meanwhile. */
        connection_drop(&db->connection, NULL);
        tries->wait = connection_begin_wait(&db->connection, tries->deadline);
        return true;
    }
    connection_drop(&db->connection, db->connection.unreplicated != db->statement.unreplicated
                                         ? "a commit did not wait for its synchronous standby"
                                         : "the connection was lost");
    if (left == 0)
        return false;
    if (tries->losses++ > 0) {
        /* Lost twice without an error: the statement itself may crash its backend. */
        if (*db->statement.sqlstate == '\0')
            return false;
        /* The server takes connections and drops each at its statement. */
        connection_note_away(&db->connection, true);
        clock_sleep_jitter(left < LOSS_PAUSE_MS ? left : LOSS_PAUSE_MS);
    }
    return true;
}

/* After an error: a verdict (false), or another try after a pause (true). */
static bool retry_error(struct database *db, struct tries *tries, enum database_verdict *verdict)
{
    switch (sqlstate_classify(db->statement.sqlstate)) {
    case SQLSTATE_BAD_DATA:
        *verdict = DATABASE_REFUSED;
        return false;
    case SQLSTATE_CONFLICT:
        *verdict = DATABASE_AWAY;
        if (tries->conflicts++ == CONFLICT_RETRIES || clock_left(tries->deadline) == 0)
            return false;
        clock_sleep_jitter((int64_t)CONFLICT_PAUSE_MS * tries->conflicts);
        return true;
    case SQLSTATE_LOST: /* not our connection, but that of a proxy to the database behind it */
    case SQLSTATE_SHORTAGE:
        *verdict = DATABASE_AWAY;
        if (strcmp(db->statement.sqlstate, READ_ONLY) != 0)
            return false;
        /* The server became read-only and will stay so: another host may have taken over. */
        if (hosts_count() > 1)
            return retry_loss(db, tries);
        connection_drop(&db->connection, NULL);
        return false;
    default:
        *verdict = DATABASE_FAILED;
        return false;
    }
}

/* Whether an answer is a standby's that is too far behind, which is left then. */
static bool leave_stale(struct database *db)
{
    int64_t age_us = db->statement.age_us;

    if (age_us < 0 || !hosts_note_age(db->connection.host, age_us))
        return false;
    statement_clear(&db->statement);
    connection_drop(&db->connection, NULL);
    db->open_on = 0;
    return true;
}

/* After a try: a verdict (false), or another try (true). */
static bool retry(struct database *db, enum statement_outcome outcome, struct tries *tries,
                  enum database_verdict *verdict)
{
    switch (outcome) {
    case STATEMENT_DONE:
        if (leave_stale(db))
            return tries->stale++ < STALE_RETRIES;
        *verdict = DATABASE_DONE;
        return false;
    case STATEMENT_ERROR:
        return statement_retry_unprepared(&db->statement) || retry_error(db, tries, verdict);
    case STATEMENT_LOST:
        return retry_loss(db, tries);
    default:
        db->is_late = true;
        return false;
    }
}

/* For a caller that does not cancel. */
static void drop_late(struct database *db)
{
    if (db->is_late)
        connection_drop(&db->connection, "no answer before the deadline");
    db->is_late = false;
}

static bool is_open(const struct database *db)
{
    return db->connection.pg != NULL && db->open_on == db->connection.serial;
}

/*
 * Ends the transaction of a cursor; drops a connection that does not answer. One that is late
 * is dropped once it was cancelled.
 */
static void close_cursor(struct database *db)
{
    if (db->is_late)
        return;
    if (is_open(db) &&
        statement_close(&db->statement, &db->connection, clock_ms() + CLOSE_MS) != STATEMENT_DONE)
        connection_drop(&db->connection, "a transaction could not be ended");
    db->open_on = 0;
}

static enum statement_outcome try_once(struct database *db, const struct plan *plan,
                                       int64_t deadline)
{
    enum statement_outcome outcome;

    if (!plan->is_cursor)
        return statement_run(&db->statement, &db->connection, plan->sql, plan->parameters,
                             plan->count, deadline);
    outcome = statement_open(&db->statement, &db->connection, plan->sql, plan->parameters,
                             plan->count, deadline, plan->idle_ms);
    if (outcome == STATEMENT_DONE || outcome == STATEMENT_LATE)
        db->open_on = db->connection.serial;
    return outcome;
}

static enum database_verdict run(struct database *db, const struct plan *plan, int64_t deadline)
{
    struct tries tries = {.wait = connection_begin_wait(&db->connection, deadline),
                          .deadline = deadline};
    enum database_verdict verdict = DATABASE_AWAY;
    enum statement_outcome outcome;

    drop_late(db);
    close_cursor(db);
    do {
        statement_clear(&db->statement);
        /* What can't end in time is not begun. */
        if (clock_left(deadline) < DATABASE_MARGIN_MS ||
            !connection_ensure(&db->connection, &tries.wait))
            break;
        outcome = start_listening(db, deadline);
        if (outcome == STATEMENT_DONE)
            outcome = try_once(db, plan, deadline);
        if (outcome == STATEMENT_DONE || outcome == STATEMENT_ERROR) {
            connection_log_back(&db->connection);
            connection_note_away(&db->connection, false);
        }
    } while (retry(db, outcome, &tries, &verdict));
    return verdict;
}

enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline)
{
    const struct plan plan = {.sql = sql, .parameters = parameters, .count = count};

    return run(db, &plan, deadline);
}

enum database_verdict database_open(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline, int idle_ms)
{
    const struct plan plan = {.sql = sql,
                              .parameters = parameters,
                              .count = count,
                              .is_cursor = true,
                              .idle_ms = idle_ms};

    return run(db, &plan, deadline);
}

enum database_verdict database_next(struct database *db, int64_t deadline)
{
    if (!is_open(db))
        return DATABASE_FAILED;
    statement_clear(&db->statement);
    switch (statement_fetch(&db->statement, &db->connection, deadline)) {
    case STATEMENT_DONE:
        return DATABASE_DONE;
    case STATEMENT_ERROR:
        db->open_on = 0;
        switch (sqlstate_classify(db->statement.sqlstate)) {
        case SQLSTATE_CONFLICT: /* with what a standby replays */
        case SQLSTATE_LOST:
        case SQLSTATE_SHORTAGE:
            return DATABASE_AWAY;
        default:
            return DATABASE_FAILED;
        }
    case STATEMENT_LOST:
        connection_drop(&db->connection, "the connection was lost");
        return DATABASE_AWAY;
    default:
        db->is_late = true;
        return DATABASE_AWAY;
    }
}

void database_clear(struct database *db)
{
    close_cursor(db);
    statement_clear(&db->statement);
}

void database_give_up_at(struct database *db, int64_t give_up)
{
    db->connection.give_up = give_up;
}

bool database_is_late(const struct database *db)
{
    return db->is_late;
}

/* Sends a cancel request and frees it. Whether the server took it. */
static bool send_cancel(PGcancel *cancel)
{
    char message[256];
    bool is_taken = PQcancel(cancel, message, sizeof(message)) != 0;

    PQfreeCancel(cancel);
    return is_taken;
}

static void *run_cancel(void *arg)
{
    (void)send_cancel(arg);
    return NULL;
}

/*
 * Whether to wait for the statement's answer after a cancel request. A frozen server lets libpq
 * wait without end, and the one host there is may do so: no other could run the next statement.
 * With several, a thread of its own waits, which is left alone after a while: it ends when the
 * host or its address does.
 */
static bool request_cancel(struct database *db, int64_t until)
{
    PGcancel *cancel = PQgetCancel(db->connection.pg);
    pthread_t thread;

    if (cancel == NULL)
        return false;
    if (hosts_count() == 1)
        return send_cancel(cancel);
    if (hosts_is_silent(db->connection.host) ||
        pthread_create(&thread, NULL, run_cancel, cancel) != 0) {
        PQfreeCancel(cancel);
        return false;
    }
    if (clock_join(thread, until))
        return true;
    pthread_detach(thread);
    hosts_note_silence(db->connection.host);
    return false;
}

void database_cancel(struct database *db, int64_t until)
{
    enum statement_outcome outcome = request_cancel(db, until)
                                         ? statement_collect(&db->statement, &db->connection, until)
                                         : STATEMENT_LOST;

    if (outcome == STATEMENT_LATE && hosts_count() == 1)
        return;
    /* It takes requests, but works at none. */
    if (outcome == STATEMENT_LATE)
        hosts_note_silence(db->connection.host);
    if (outcome == STATEMENT_LOST || outcome == STATEMENT_LATE || is_open(db))
        connection_drop(&db->connection, "no answer before the deadline");
    db->open_on = 0;
    db->is_late = false;
    statement_clear(&db->statement);
}

int64_t database_seen_us(const struct database *db)
{
    return db->statement.age_us < 0 ? INT64_MAX : db->statement.seen_us;
}

int64_t database_age_us(const struct database *db)
{
    return db->statement.age_us < 0 ? 0 : db->statement.age_us;
}

bool database_is_notified(const struct database *db)
{
    return db->connection.is_listening;
}

const char *database_sqlstate(const struct database *db)
{
    return db->statement.sqlstate;
}

bool database_lacks_shard(const struct database *db)
{
    return strcmp(db->statement.sqlstate, "XX000") == 0 &&
           strstr(PQresultErrorMessage(db->statement.result), "Hash function returned NULL") !=
               NULL;
}

void database_disconnect(struct database *db)
{
    connection_drop(&db->connection, NULL);
    db->connection.was_open = false;
    db->is_late = false;
    db->open_on = 0;
}

int database_rows(const struct database *db)
{
    return PQntuples(db->statement.result);
}

bool database_is_null(const struct database *db, int row, int column)
{
    return PQgetisnull(db->statement.result, row, column) != 0;
}

const char *database_bytes(const struct database *db, int row, int column, size_t *length)
{
    *length = (size_t)PQgetlength(db->statement.result, row, column);
    return PQgetvalue(db->statement.result, row, column);
}

int64_t database_integer(const struct database *db, int row, int column)
{
    const char *value = PQgetvalue(db->statement.result, row, column);
    int length = PQgetlength(db->statement.result, row, column);
    uint32_t four;
    uint64_t eight;

    if (length == (int)sizeof(four)) {
        memcpy(&four, value, sizeof(four));
        return (int32_t)ntohl(four);
    }
    if (length != (int)sizeof(eight))
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
