/*
 * The database's migration level and the one that this program was made with,
 * which is the name of the newest file in sql/migrations.
 */
#ifndef STEEP_SCHEMA_H
#define STEEP_SCHEMA_H

#include "db/database.h"

#include <stdint.h>

/*
 * Says in the log where the database is at a newer level, or lacks a migration.
 * The program goes on all the same: what it calls keeps its form from one level to
 * the next. Asks before deadline (clock_ms), and says nothing without an answer.
 */
void schema_check(struct database *db, int64_t deadline);

#endif
