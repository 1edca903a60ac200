#include "db/statement.h"

#include "base/clock.h"
#include "base/log.h"

#include <endian.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define TEXT(macro) #macro
#define NUMBER(macro) TEXT(macro)

enum {
    PARAMETERS_MOST = 5,
    NAME_BYTES = 24,
    SETTING_BYTES = 16,
    ROLL_BACK_MS = 1000,
};

/* Runs before each statement, in its transaction. */
static const char SET_TIMEOUT[] = "SELECT pg_catalog.set_config('statement_timeout', $1, true)";

static const char SET_CURSOR_TIMEOUTS[] =
    "SELECT pg_catalog.set_config('statement_timeout', $1, true),"
    " pg_catalog.set_config('idle_in_transaction_session_timeout', $2, true)";
/* Before the statement, which then sees what this one sees, or more. */
static const char ASK_AGE[] = "SELECT seen_us, age_us FROM public.data_time()";

static const char FETCH[] =
    "FETCH FORWARD " NUMBER(DATABASE_PIECE_ROWS) " FROM " DATABASE_CURSOR_NAME;

/* Type OIDs never change (src/include/catalog/pg_type.dat). */
static const Oid TYPE_OIDS[] = {
    [DATABASE_TEXT] = 25,         [DATABASE_TEXT_ARRAY] = 1009,  [DATABASE_INT4] = 23,
    [DATABASE_INT4_ARRAY] = 1007, [DATABASE_JSONB_ARRAY] = 3807,
};

/*
 * Whether statements are prepared. Through a pooler they may be another connection's; the
 * first error that says so turns it off. A name is the hash of its text, so that one of
 * another program is the same statement.
 */
static atomic_bool is_preparing = true;

/* Sends what libpq still holds for this connection, and reads the answer. */
static enum statement_outcome exchange(const struct connection *connection, int64_t deadline)
{
    for (;;) {
        int left = PQflush(connection->pg);

        if (left < 0)
            return STATEMENT_LOST;
        if (left == 0 && !PQisBusy(connection->pg))
            return STATEMENT_DONE;
        if (!connection_await(connection, left > 0 ? POLLIN | POLLOUT : POLLIN, deadline))
            return connection_is_left(connection) ? STATEMENT_LOST : STATEMENT_LATE;
        if (!PQconsumeInput(connection->pg))
            return STATEMENT_LOST;
    }
}

/*
 * Keeps the error of a result; STATEMENT_LOST if it says that the connection is closing. One of
 * severity ERROR leaves it open: a proxy passes on what it was told by the database behind it.
 */
static enum statement_outcome note_error(struct statement *statement, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

    snprintf(statement->sqlstate, sizeof(statement->sqlstate), "%s",
             sqlstate != NULL ? sqlstate : "");
    if (severity != NULL && strcmp(severity, "ERROR") == 0)
        return STATEMENT_ERROR;
    return sqlstate_classify(sqlstate) == SQLSTATE_LOST ? STATEMENT_LOST : STATEMENT_ERROR;
}

/* A column of int8; INT64_MAX for NULL. */
static int64_t read_time(const PGresult *result, int column)
{
    uint64_t value;

    if (PQgetisnull(result, 0, column) || PQgetlength(result, 0, column) != (int)sizeof(value))
        return INT64_MAX;
    memcpy(&value, PQgetvalue(result, 0, column), sizeof(value));
    return (int64_t)be64toh(value);
}

/* There is no row if the standby was promoted meanwhile. */
static void note_age(struct statement *statement, const PGresult *result)
{
    if (statement->steps_done != statement->age_step)
        return;
    statement->age_us = -1;
    if (PQntuples(result) == 1) {
        statement->seen_us = read_time(result, 0);
        statement->age_us = read_time(result, 1);
        /* The clock of the standby is behind. */
        if (statement->age_us < 0)
            statement->age_us = 0;
    }
}

/* A step was answered: if it prepared a statement, the connection has it. */
static void note_step(struct statement *statement, bool is_done)
{
    uint64_t hash =
        statement->steps_done < statement->step_count ? statement->steps[statement->steps_done] : 0;

    statement->steps_done++;
    if (is_done && hash != 0 && statement->prepared_count < STATEMENT_PREPARED_MOST)
        statement->prepared[statement->prepared_count++] = hash;
}

/*
 * Reads results up to the end of the pipeline: that message confirms the commit, not the
 * statement's own. Keeps the first error, or the last result.
 */
enum statement_outcome statement_collect(struct statement *statement,
                                         const struct connection *connection, int64_t deadline)
{
    enum statement_outcome outcome = STATEMENT_DONE;

    for (;;) {
        PGresult *result;
        enum statement_outcome exchanged = exchange(connection, deadline);

        if (exchanged != STATEMENT_DONE)
            return exchanged;
        result = PQgetResult(connection->pg);
        if (PQstatus(connection->pg) != CONNECTION_OK) {
            if (result != NULL && outcome == STATEMENT_DONE)
                (void)note_error(statement, result);
            PQclear(result);
            return STATEMENT_LOST;
        }
        switch (result != NULL ? PQresultStatus(result) : PGRES_EMPTY_QUERY) {
        case PGRES_EMPTY_QUERY: /* between two steps */
            break;
        case PGRES_PIPELINE_SYNC:
            PQclear(result);
            return outcome == STATEMENT_DONE && connection->unreplicated != statement->unreplicated
                       ? STATEMENT_LOST
                       : outcome;
        case PGRES_TUPLES_OK:
            note_age(statement, result);
            /* fallthrough */
        case PGRES_COMMAND_OK:
            note_step(statement, true);
            PQclear(statement->result);
            statement->result = result;
            continue;
        case PGRES_PIPELINE_ABORTED:
            note_step(statement, false);
            break;
        default:
            note_step(statement, false);
            if (outcome != STATEMENT_DONE)
                break;
            outcome = note_error(statement, result);
            PQclear(statement->result);
            statement->result = result;
            continue;
        }
        PQclear(result);
    }
}

/* FNV-1a, of 64 bits. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return hash;
}

static bool has_prepared(const struct statement *statement, uint64_t hash)
{
    for (int i = 0; i < statement->prepared_count; i++) {
        if (statement->prepared[i] == hash)
            return true;
    }
    return false;
}

/* Sends one statement of a pipeline that has no parameters and is not worth preparing. */
static bool send_plain(struct statement *statement, const struct connection *connection,
                       const char *sql)
{
    statement->steps[statement->step_count++] = 0;
    return PQsendQueryParams(connection->pg, sql, 0, NULL, NULL, NULL, NULL, 1) != 0;
}

/* Sends one statement of a pipeline, and before it what prepares it. */
static bool send_step(struct statement *statement, const struct connection *connection,
                      const char *sql, const struct database_parameter *parameters, int count)
{
    Oid types[PARAMETERS_MOST];
    const char *values[PARAMETERS_MOST];
    int lengths[PARAMETERS_MOST];
    int formats[PARAMETERS_MOST];
    char name[NAME_BYTES];
    uint64_t hash = hash_of(sql);

    for (int i = 0; i < count; i++) {
        types[i] = TYPE_OIDS[parameters[i].type];
        values[i] = parameters[i].value;
        lengths[i] = (int)parameters[i].length;
        formats[i] = 1;
    }
    if (!statement->is_prepared) {
        statement->steps[statement->step_count++] = 0;
        return PQsendQueryParams(connection->pg, sql, count, types, values, lengths, formats, 1) !=
               0;
    }
    snprintf(name, sizeof(name), "steep_%016" PRIx64, hash);
    if (!has_prepared(statement, hash)) {
        statement->steps[statement->step_count++] = hash;
        if (!PQsendPrepare(connection->pg, name, sql, count, types))
            return false;
    }
    statement->steps[statement->step_count++] = 0;
    return PQsendQueryPrepared(connection->pg, name, count, values, lengths, formats, 1) != 0;
}

/* Begins a pipeline. */
static void begin(struct statement *statement, const struct connection *connection)
{
    if (statement->prepared_on != connection->serial)
        statement->prepared_count = 0;
    statement->prepared_on = connection->serial;
    statement->step_count = 0;
    statement->steps_done = 0;
    statement->is_prepared = atomic_load(&is_preparing);
    statement->age_step = -1;
    statement->unreplicated = connection->unreplicated;
}

/* Sends what a standby must tell before a statement. */
static bool send_age_step(struct statement *statement, const struct connection *connection)
{
    bool is_sent = true;

    statement->age_us = -1;
    if (connection_is_on_standby(connection)) {
        statement->age_us = INT64_MAX;
        is_sent = send_step(statement, connection, ASK_AGE, NULL, 0);
        statement->age_step = statement->step_count - 1;
    }
    return is_sent;
}

/* A number of milliseconds as a setting. */
static struct database_parameter setting(char text[static SETTING_BYTES], int ms)
{
    return (struct database_parameter){DATABASE_TEXT, text,
                                       (size_t)snprintf(text, SETTING_BYTES, "%d", ms)};
}

/* The time that a statement has; 0 would be no limit. */
static int limit_ms(int64_t deadline)
{
    int left = clock_left(deadline);

    return left > 2 * DATABASE_MARGIN_MS ? left - DATABASE_MARGIN_MS : DATABASE_MARGIN_MS;
}

enum statement_outcome statement_run(struct statement *statement,
                                     const struct connection *connection, const char *sql,
                                     const struct database_parameter *parameters, int count,
                                     int64_t deadline)
{
    char text[SETTING_BYTES];
    const struct database_parameter limit = setting(text, limit_ms(deadline));

    begin(statement, connection);
    if (!send_step(statement, connection, SET_TIMEOUT, &limit, 1) ||
        !send_age_step(statement, connection) ||
        !send_step(statement, connection, sql, parameters, count) ||
        !PQpipelineSync(connection->pg))
        return STATEMENT_LOST;
    return statement_collect(statement, connection, deadline);
}

/* Ends a transaction after an error, which stays the statement's. */
static enum statement_outcome roll_back(const struct connection *connection)
{
    struct statement rest = {.prepared_on = connection->serial};

    begin(&rest, connection);
    if (!send_plain(&rest, connection, "ROLLBACK") || !PQpipelineSync(connection->pg) ||
        statement_collect(&rest, connection, clock_ms() + ROLL_BACK_MS) != STATEMENT_DONE)
        return STATEMENT_LOST;
    statement_clear(&rest);
    return STATEMENT_ERROR;
}

static enum statement_outcome collect_rows(struct statement *statement,
                                           const struct connection *connection, int64_t deadline)
{
    enum statement_outcome outcome = statement_collect(statement, connection, deadline);

    return outcome == STATEMENT_ERROR ? roll_back(connection) : outcome;
}

enum statement_outcome statement_open(struct statement *statement,
                                      const struct connection *connection, const char *sql,
                                      const struct database_parameter *parameters, int count,
                                      int64_t deadline, int idle_ms)
{
    char texts[2][SETTING_BYTES];
    const struct database_parameter limits[] = {setting(texts[0], limit_ms(deadline)),
                                                setting(texts[1], idle_ms)};

    begin(statement, connection);
    if (!send_plain(statement, connection, "BEGIN") ||
        !send_step(statement, connection, SET_CURSOR_TIMEOUTS, limits, 2) ||
        !send_age_step(statement, connection) ||
        !send_step(statement, connection, sql, parameters, count) ||
        !send_plain(statement, connection, FETCH) || !PQpipelineSync(connection->pg))
        return STATEMENT_LOST;
    return collect_rows(statement, connection, deadline);
}

enum statement_outcome statement_fetch(struct statement *statement,
                                       const struct connection *connection, int64_t deadline)
{
    char text[SETTING_BYTES];
    const struct database_parameter limit = setting(text, limit_ms(deadline));

    begin(statement, connection);
    if (!send_step(statement, connection, SET_TIMEOUT, &limit, 1) ||
        !send_plain(statement, connection, FETCH) || !PQpipelineSync(connection->pg))
        return STATEMENT_LOST;
    return collect_rows(statement, connection, deadline);
}

enum statement_outcome statement_close(struct statement *statement,
                                       const struct connection *connection, int64_t deadline)
{
    begin(statement, connection);
    if (!send_plain(statement, connection, "COMMIT") || !PQpipelineSync(connection->pg))
        return STATEMENT_LOST;
    return collect_rows(statement, connection, deadline);
}

bool statement_retry_unprepared(const struct statement *statement)
{
    static const char *const STATES[] = {"42P05", "26000", "0A000"};
    struct log_line line;

    for (size_t i = 0; i < sizeof(STATES) / sizeof(STATES[0]); i++) {
        if (strcmp(statement->sqlstate, STATES[i]) != 0 || !statement->is_prepared)
            continue;
        /* Others may have sent theirs before the first of them noticed. */
        if (atomic_exchange(&is_preparing, false)) {
            log_begin(&line, LOG_INFO, "unprepared");
            log_string(&line, "sqlstate", statement->sqlstate);
            log_string(&line, "detail", "statements are no longer prepared");
            log_end(&line);
        }
        return true;
    }
    return false;
}

void statement_clear(struct statement *statement)
{
    PQclear(statement->result);
    statement->result = NULL;
    statement->sqlstate[0] = '\0';
}
