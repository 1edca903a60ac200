/*
 * The two judges: whatever ingest.fcgi takes is stored by PostgreSQL as the
 * same event, or refused as bad data. PG* names a database that is up to date
 * and empty, and its administrator; nothing stays in it.
 */
#include "db/sqlstate.h"
#include "event/rfc3339.h"
#include "exact.h"
#include "fuzz.h"
#include "mutator.h"

#include <endian.h>
#include <libpq-fe.h>

/* The file itself, for its static functions, which read an event. */
#include "event/batch.c" // NOLINT(bugprone-suspicious-include)

enum { MUTATIONS = 8 };

static const struct event_text SOURCE = {"macbook", 7};

static PGconn *database;

/* Counts of bodies. */
static unsigned long tried, accepted, refused;

static void print_share(void)
{
    fprintf(stderr, "judges: %lu of %lu bodies accepted, PostgreSQL refused %lu of them\n",
            accepted, tried, refused);
}

/* The result of a statement that must succeed, and return so many rows. */
static PGresult *expect(PGresult *result, int rows)
{
    ExecStatusType status = PQresultStatus(result);

    if ((status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) || PQntuples(result) != rows) {
        fprintf(stderr, "%d rows, %s", PQntuples(result), PQerrorMessage(database));
        require(false, "PostgreSQL answers");
    }
    return result;
}

static void run(const char *statement)
{
    PQclear(expect(PQexec(database, statement), 0));
}

/* The settings that ingest.fcgi's role has hold here as well. */
int LLVMFuzzerInitialize(int *argc, char ***argv) // NOLINT(readability-non-const-parameter)
{
    (void)argc;
    (void)argv;
    database = PQconnectdb("client_encoding=UTF8");
    if (PQstatus(database) != CONNECTION_OK) {
        fputs(PQerrorMessage(database), stderr);
        exit(EXIT_FAILURE); // NOLINT(concurrency-mt-unsafe)
    }
    PQclear(expect(PQexec(database, "SELECT count(set_config(split_part(setting, '=', 1),"
                                    " substr(setting, strpos(setting, '=') + 1), false))"
                                    " FROM pg_roles, unnest(rolconfig) AS setting"
                                    " WHERE rolname = 'steep_ingest'"),
                   1));
    atexit(print_share);
    return 0;
}

/* The parameter is sent in binary, as ingest.fcgi does it: a body's text must not end at a NUL. */
static PGresult *ask(const char *statement, const char *text, size_t length)
{
    static const Oid TEXT = 25;
    const int lengths[] = {(int)length};
    const int formats[] = {1};

    return PQexecParams(database, statement, 1, &TEXT, &text, lengths, formats, 1);
}

static int64_t integer(const PGresult *result, int column)
{
    uint64_t bits;

    require(PQgetlength(result, 0, column) == sizeof(bits), "a bigint has 8 bytes");
    memcpy(&bits, PQgetvalue(result, 0, column), sizeof(bits));
    return (int64_t)be64toh(bits);
}

static bool is_stored(const PGresult *row, int column, const struct event_text *text)
{
    return event_text_equals(text, PQgetvalue(row, 0, column), (size_t)PQgetlength(row, 0, column));
}

/* An event as ingest.fcgi reads it. */
struct reading {
    struct reader reader; /* the texts may point into its strings */
    struct event event;
    int64_t microseconds;
};

/* Caller frees the reader. */
static struct reading read_accepted(const struct scan_event *scanned)
{
    struct reading reading = {.reader = {.tokener = NULL}};

    require(read_event(&reading.reader, scanned, &reading.event), "there is memory");
    require(rfc3339_parse(reading.event.timestamp.text, reading.event.timestamp.length,
                          &reading.microseconds),
            "what is accepted has a timestamp");
    return reading;
}

static void compare_payload(const struct scan_event *text, const PGresult *row, int column)
{
    struct json_object *event = exact_parse(text->text, text->length);
    struct json_object *stored =
        exact_parse(PQgetvalue(row, 0, column), (size_t)PQgetlength(row, 0, column));
    struct json_object *payload;

    require(json_object_object_get_ex(event, "payload", &payload) &&
                json_object_equal(payload, stored),
            "the payload is stored as it is read, with its numbers' values");
    json_object_put(stored);
    json_object_put(event);
}

static void compare(const struct scan_event *text, const struct reading *reading)
{
    const struct event *event = &reading->event;
    PGresult *row = expect(
        ask("SELECT id, source, (extract(epoch FROM timestamp) * 1000000)::bigint, event_type,"
            " payload::text FROM public.events WHERE id = $1",
            event->id.text, event->id.length),
        1);

    require(is_stored(row, 0, &event->id), "the id is stored as it is read");
    require(is_stored(row, 1, &SOURCE), "the source is X-Source-ID");
    require(integer(row, 2) == reading->microseconds, "the timestamp is stored as it is read");
    require(is_stored(row, 3, &event->type), "the type is stored as it is read");
    compare_payload(text, row, 4);
    PQclear(row);
}

/* Whether an event before this one has its id; the first is the one that is stored. */
static bool is_repeated(const struct reading *readings, size_t index)
{
    const struct event_text *id = &readings[index].event.id;

    for (size_t i = 0; i < index; i++) {
        if (event_text_equals(id, readings[i].event.id.text, readings[i].event.id.length))
            return true;
    }
    return false;
}

static void compare_all(const struct batch *batch, int64_t inserted)
{
    static struct reading readings[BATCH_EVENTS];
    int64_t expected = 0;

    for (size_t i = 0; i < batch->count; i++) {
        readings[i] = read_accepted(&batch->events[i]);
        if (is_repeated(readings, i))
            continue;
        compare(&batch->events[i], &readings[i]);
        expected++;
    }
    require(inserted == expected, "each id is stored once");
    for (size_t i = 0; i < batch->count; i++)
        free_reader(&readings[i].reader);
}

static void judge(const struct batch *batch, const char *body, size_t length)
{
    PGresult *result;

    run("BEGIN");
    result =
        ask("SELECT inserted_count FROM public.bulk_insert_events($1::text::jsonb)", body, length);
    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        compare_all(batch, integer(expect(result, 1), 0));
    } else {
        refused++;
        fputs(PQerrorMessage(database), stderr);
        require(sqlstate_classify(PQresultErrorField(result, PG_DIAG_SQLSTATE)) ==
                    SQLSTATE_BAD_DATA,
                "PostgreSQL refuses nothing but bad data");
    }
    PQclear(result);
    run("ROLLBACK");
}

static bool is_accepted(struct batch *batch, const char *body, size_t length)
{
    return batch_split(batch, body, length) == ERROR_NONE &&
           batch_check(batch, SOURCE.text, SOURCE.length) == ERROR_NONE;
}

/*
 * PostgreSQL takes a hundred times as long as batch_check, so it is better to
 * change a body a few times until it is one to ask about.
 */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    static struct batch batch;
    char *original = copy_bytes(data, size);
    bool is_good = false;
    size_t changed = size;

    for (unsigned int i = 0; i < MUTATIONS && !is_good; i++) {
        char *body;

        memcpy(data, original, size);
        changed = mutator_change(data, i < MUTATIONS / 2 ? size : 0, max_size, seed + i);
        body = copy_text(data, changed);
        is_good = is_accepted(&batch, body, changed);
        free(body);
    }
    free(original);
    return changed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct batch batch;
    char *body = copy_text(data, size);

    tried++;
    if (is_accepted(&batch, body, size)) {
        accepted++;
        judge(&batch, body, size);
    }
    free(body);
    return 0;
}
