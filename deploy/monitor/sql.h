/* Statements of SQLite: prepared, bound and run in one call, and what went wrong. */
#ifndef STEEP_SQL_H
#define STEEP_SQL_H

#include "base/error.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SQL_PROBLEM_BYTES = 128 };

/* Runs statements without parameters or results. */
bool sql_run(sqlite3 *database, const char *sql) MUST_CHECK;

/*
 * Binds values by their types (i: int64_t, s: string, b: bytes and a size_t, which must
 * outlive the statement), and runs a statement that has no result, or begins one that has.
 * sql_bind returns its argument; sql_prepare NULL if it can't, which SQLite takes for
 * a statement that fails.
 */
bool sql_change(sqlite3 *database, const char *sql, const char *types, ...) MUST_CHECK;
sqlite3_stmt *sql_prepare(sqlite3 *database, const char *sql, const char *types, ...);
sqlite3_stmt *sql_bind(sqlite3_stmt *statement, const char *types, ...);

/* The first column of a query's first row; 0 if there is none or it fails. */
int64_t sql_number(sqlite3 *database, const char *sql);

/* A column of the current row as a string; "" for NULL. */
const char *sql_text(sqlite3_stmt *statement, int column);

/* Describes the last error. */
void sql_problem(sqlite3 *database, char why[static SQL_PROBLEM_BYTES]);

/* Whether the last error means that the file is damaged. */
bool sql_is_damaged(sqlite3 *database);

#endif
