#include "sql.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Errors of the file system and of other processes; any other means that the file is damaged. */
bool sql_is_damaged(sqlite3 *database)
{
    switch (sqlite3_errcode(database) & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_NOMEM:
    case SQLITE_NOLFS:
        return false;
    case SQLITE_READONLY: {
        /* The file can be written: then its header is wrong. */
        const char *path = sqlite3_db_filename(database, "main");

        return path != NULL && access(path, W_OK) == 0;
    }
    default:
        return true;
    }
}

void sql_problem(sqlite3 *database, char why[static SQL_PROBLEM_BYTES])
{
    const int code = sqlite3_errcode(database) & 0xff;
    const int error = sqlite3_system_errno(database);

    if (code == SQLITE_FULL)
        snprintf(why, SQL_PROBLEM_BYTES, "%s", strerror(ENOSPC));
    else if ((code == SQLITE_IOERR || code == SQLITE_CANTOPEN) && error != 0)
        snprintf(why, SQL_PROBLEM_BYTES, "%s", strerror(error));
    else
        snprintf(why, SQL_PROBLEM_BYTES, "%s", sqlite3_errstr(code));
}

bool sql_run(sqlite3 *database, const char *sql)
{
    return sqlite3_exec(database, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static void bind_values(sqlite3_stmt *statement, const char *types, va_list values)
{
    for (int i = 1; *types != '\0'; types++, i++) {
        if (*types == 'i') {
            sqlite3_bind_int64(statement, i, va_arg(values, int64_t));
        } else if (*types == 's') {
            sqlite3_bind_text(statement, i, va_arg(values, const char *), -1, SQLITE_STATIC);
        } else {
            const char *bytes = va_arg(values, const char *);

            sqlite3_bind_blob64(statement, i, bytes, va_arg(values, size_t), SQLITE_STATIC);
        }
    }
}

static sqlite3_stmt *prepare(sqlite3 *database, const char *sql, const char *types, va_list values)
{
    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK)
        bind_values(statement, types, values);
    return statement;
}

sqlite3_stmt *sql_prepare(sqlite3 *database, const char *sql, const char *types, ...)
{
    sqlite3_stmt *statement;
    va_list values;

    va_start(values, types);
    statement = prepare(database, sql, types, values);
    va_end(values);
    return statement;
}

sqlite3_stmt *sql_bind(sqlite3_stmt *statement, const char *types, ...)
{
    va_list values;

    va_start(values, types);
    bind_values(statement, types, values);
    va_end(values);
    return statement;
}

bool sql_change(sqlite3 *database, const char *sql, const char *types, ...)
{
    sqlite3_stmt *statement;
    va_list values;

    va_start(values, types);
    statement = prepare(database, sql, types, values);
    va_end(values);
    sqlite3_step(statement);
    return statement != NULL && sqlite3_finalize(statement) == SQLITE_OK;
}

int64_t sql_number(sqlite3 *database, const char *sql)
{
    sqlite3_stmt *query = sql_prepare(database, sql, "");
    const int64_t number = sqlite3_step(query) == SQLITE_ROW ? sqlite3_column_int64(query, 0) : 0;

    sqlite3_finalize(query);
    return number;
}

const char *sql_text(sqlite3_stmt *statement, int column)
{
    const unsigned char *text = sqlite3_column_text(statement, column);

    return text == NULL ? "" : (const char *)text;
}
