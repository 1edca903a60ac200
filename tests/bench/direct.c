#include "client.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_OID = 25 };

static void *direct_open(void)
{
    PGconn *connection = PQconnectdb("");

    if (PQstatus(connection) == CONNECTION_OK)
        return connection;
    fprintf(stderr, "load: %s", PQerrorMessage(connection));
    PQfinish(connection);
    return NULL;
}

static void direct_close(void *connection)
{
    PQfinish(connection);
}

/* Passes the body as the programs do: as text in binary format. */
static PGresult *store(PGconn *connection, const struct body *body)
{
    static const Oid TYPES[] = {TEXT_OID};
    static const int FORMATS[] = {1};
    const char *const values[] = {body->text};
    const int lengths[] = {(int)body->length};

    return PQexecParams(connection,
                        "SELECT inserted_count FROM public.bulk_insert_events($1::text::jsonb)", 1,
                        TYPES, values, lengths, FORMATS, 0);
}

static PGresult *ask(PGconn *connection, const struct work *work)
{
    const char *const values[] = {work->days, work->source};

    return PQexecParams(connection,
                        "SELECT source, date, hour, event_count"
                        " FROM public.get_hourly_aggregates($1::integer, $2::text)",
                        2, NULL, values, NULL, NULL, 0);
}

static bool direct_send(void *connection, const struct work *work, struct answer *answer)
{
    PGresult *result = work->body != NULL ? store(connection, work->body) : ask(connection, work);
    bool is_done = PQresultStatus(result) == PGRES_TUPLES_OK;

    if (!is_done)
        fprintf(stderr, "load: %s", PQerrorMessage(connection));
    else if (work->body != NULL)
        answer->inserted = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    else
        answer->rows = PQntuples(result);
    PQclear(result);
    return is_done;
}

const struct client CLIENT_DATABASE = {direct_open, direct_send, direct_close};
