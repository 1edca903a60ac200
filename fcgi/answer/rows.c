#include "answer/rows.h"

#include <arpa/inet.h>
#include <stdio.h>

/* PostgreSQL's date: days since 2000-01-01, in Unix time. */
static const int64_t EPOCH_2000 = INT64_C(946684800);

enum { SECONDS_PER_DAY = 86400, DATE_BYTES = sizeof("2026-02-03") };

/* Formats a date; "" for one without a year of four digits (infinity). */
static void format_date(int64_t days, char text[static DATE_BYTES])
{
    time_t seconds = EPOCH_2000 + days * SECONDS_PER_DAY;
    struct tm tm;

    text[0] = '\0';
    if (gmtime_r(&seconds, &tm) != NULL && tm.tm_year > -1900 && tm.tm_year <= 9999 - 1900)
        strftime(text, DATE_BYTES, "%Y-%m-%d", &tm);
}

/* Of infinity, which an administrator can store. */
enum { NO_HOUR = -1 };

static void format_hour(struct rows *rows, int64_t days, int64_t hour)
{
    char number[8] = "null";

    if (rows->hour_length == 0 || days != rows->days) {
        char date[DATE_BYTES];

        format_date(days, date);
        rows->date_length =
            snprintf(rows->hour_text, sizeof(rows->hour_text), ",\"date\":\"%s\",\"hour\":", date);
    }
    if (hour != NO_HOUR)
        snprintf(number, sizeof(number), "%d", (int)hour);
    rows->days = days;
    rows->hour = hour;
    rows->hour_length =
        rows->date_length + snprintf(rows->hour_text + rows->date_length,
                                     sizeof(rows->hour_text) - (size_t)rows->date_length,
                                     "%s,\"eventCount\":", number);
}

static void add_source(struct buffer *out, const struct database *db, int row)
{
    size_t length;
    const char *source = database_bytes(db, row, 0, &length);

    buffer_add_text(out, "\"source\":");
    buffer_add_json(out, source, length);
}

/* The hour of a row, whose date is in a column and whose hour is in the next. */
static void use_hour(struct rows *rows, const struct database *db, int row, int column)
{
    int64_t days = database_integer(db, row, column);
    int64_t hour =
        database_is_null(db, row, column + 1) ? NO_HOUR : database_integer(db, row, column + 1);

    if (rows->hour_length == 0 || days != rows->days || hour != rows->hour)
        format_hour(rows, days, hour);
}

static void add_count(struct rows *rows, struct buffer *out, const struct database *db, int row)
{
    add_source(out, db, row);
    use_hour(rows, db, row, 1);
    buffer_add(out, rows->hour_text, (size_t)rows->hour_length);
    buffer_add_integer(out, database_integer(db, row, 3));
}

static void add_hour_total(struct rows *rows, struct buffer *out, const struct database *db,
                           int row)
{
    use_hour(rows, db, row, 0);
    buffer_add(out, rows->hour_text + 1, (size_t)rows->hour_length - 1); /* no comma */
    buffer_add_integer(out, database_integer(db, row, 2));
}

static void add_source_total(struct rows *rows, struct buffer *out, const struct database *db,
                             int row)
{
    (void)rows;
    add_source(out, db, row);
    buffer_add_text(out, ",\"eventCount\":");
    buffer_add_integer(out, database_integer(db, row, 1));
}

#define COUNTS "SELECT source, date, hour, event_count FROM public.get_hourly_aggregates($1, $2)"
#define SCOPED_COUNTS                                                                              \
    "SELECT source, date, hour, event_count FROM public.get_scoped_aggregates($1, $2, $3, $4)"
#define HOUR_TOTALS "SELECT date, hour, event_count FROM public.get_hourly_totals($1, $2, $3, $4)"
#define SOURCE_TOTALS "SELECT source, event_count FROM public.get_source_totals($1, $2, $3, $4)"

/* A statement for the first rows, and as a cursor. */
#define STATEMENTS(sql)                                                                            \
    {                                                                                              \
        sql " LIMIT $5", DATABASE_CURSOR sql                                                       \
    }

/* The data model's function has no scope, so that those of a scope are another statement. */
static const struct grouping {
    struct grouping_statements {
        const char *sql;
        const char *cursor;
    } all, scoped;
    void (*add)(struct rows *rows, struct buffer *out, const struct database *db, int row);
} GROUPINGS[] = {
    [QUERY_BY_SOURCE_AND_HOUR] = {STATEMENTS(COUNTS), STATEMENTS(SCOPED_COUNTS), add_count},
    [QUERY_BY_HOUR] = {STATEMENTS(HOUR_TOTALS), STATEMENTS(HOUR_TOTALS), add_hour_total},
    [QUERY_BY_SOURCE] = {STATEMENTS(SOURCE_TOTALS), STATEMENTS(SOURCE_TOTALS), add_source_total},
};

int rows_add(struct rows *rows, struct buffer *out, const struct question *asked,
             const struct database *db, int first, size_t bytes)
{
    int count = database_rows(db);
    int row = first;

    for (; row < count && out->length < bytes && !out->is_short; row++) {
        buffer_add_text(out, rows->count == 0 ? "{" : "},{");
        GROUPINGS[asked->parameters.grouping].add(rows, out, db, row);
        rows->count++;
    }
    return row;
}

/* An array of the scope; an SQL NULL for none. */
static struct database_parameter text_array(const struct scope_array *array)
{
    return (struct database_parameter){DATABASE_TEXT_ARRAY, array != NULL ? array->bytes : NULL,
                                       array != NULL ? array->length : 0};
}

void rows_ask(struct rows_statement *statement, const struct question *asked)
{
    const struct query_string *parameters = &asked->parameters;
    const struct scope *scope = asked->scope;
    const struct grouping *grouping = &GROUPINGS[parameters->grouping];
    const struct grouping_statements *statements =
        scope != NULL ? &grouping->scoped : &grouping->all;

    statement->sql = statements->sql;
    statement->cursor = statements->cursor;
    statement->days = htonl((uint32_t)parameters->days);
    statement->most = htonl(DATABASE_PIECE_ROWS);
    statement->parameters[0] =
        (struct database_parameter){DATABASE_INT4, &statement->days, sizeof(statement->days)};
    statement->parameters[1] = (struct database_parameter){
        DATABASE_TEXT, parameters->source_length > 0 ? parameters->source : NULL,
        parameters->source_length};
    statement->parameters[2] = text_array(scope != NULL ? &scope->names : NULL);
    statement->parameters[3] = text_array(scope != NULL ? &scope->prefixes : NULL);
    statement->parameters[4] =
        (struct database_parameter){DATABASE_INT4, &statement->most, sizeof(statement->most)};
    statement->count = ROWS_PARAMETERS_MOST;
}

void rows_begin(struct buffer *out)
{
    buffer_add_text(out, "{\"aggregates\":[");
}

void rows_end(const struct rows *rows, struct buffer *out, const struct question *asked,
              const struct timespec *fetched_at)
{
    struct tm tm;
    char second[32];

    gmtime_r(&fetched_at->tv_sec, &tm);
    strftime(second, sizeof(second), "%Y-%m-%dT%H:%M:%S", &tm);
    buffer_printf(
        out, "%s],\"meta\":{\"totalCount\":%lld,\"daysRequested\":%d,\"fetchedAt\":\"%s.%03ldZ\"}}",
        rows->count > 0 ? "}" : "", (long long)rows->count, asked->parameters.days, second,
        fetched_at->tv_nsec / 1000000);
}
