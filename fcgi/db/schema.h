/*
 * The database's migration level, and the one that this program was built with: the
 * name of the newest file in sql/migrations.
 */
#ifndef STEEP_SCHEMA_H
#define STEEP_SCHEMA_H

#include "db/database.h"

#include <stdint.h>

/*
 * Logs a warning if the database is at a newer level or lacks a migration. The program
 * goes on all the same: the functions that it calls keep their form from one level to
 * the next. Logs nothing without an answer before deadline (clock_ms).
 */
void schema_check(struct database *db, int64_t deadline);

#endif
