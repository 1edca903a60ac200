#include "db/schema.h"

#include "base/log.h"

#include <string.h>

/* undefined_function: the database is older than schema_level(). */
static const char UNKNOWN_FUNCTION[] = "42883";

static void warn(const char *detail, const char *level, size_t length)
{
    struct log_line line;

    log_begin(&line, LOG_WARNING, "schema");
    log_string(&line, "detail", detail);
    log_bytes(&line, "database", level, length);
    log_string(&line, "program", STEEP_SCHEMA);
    log_end(&line);
}

/* The names begin with dates, so their order is that of the levels. */
void schema_check(struct database *db, int64_t deadline)
{
    static const char LACKS[] = "the database lacks migrations; run steepctl migrate";
    enum database_verdict verdict =
        database_call(db, "SELECT public.schema_level()", NULL, 0, deadline);

    if (verdict == DATABASE_DONE && database_rows(db) == 1 && !database_is_null(db, 0, 0)) {
        size_t length;
        const char *level = database_bytes(db, 0, 0, &length);
        int order = strcmp(level, STEEP_SCHEMA);

        if (order > 0)
            warn("the database has migrations of a newer version of this program", level, length);
        else if (order < 0)
            warn(LACKS, level, length);
    } else if (strcmp(database_sqlstate(db), UNKNOWN_FUNCTION) == 0) {
        warn(LACKS, "", 0);
    }
    database_clear(db);
}
