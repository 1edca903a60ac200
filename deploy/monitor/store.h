/*
 * The SQLite database of the state folder, spool.db: opened, checked, and
 * recovered if it is damaged.
 *
 *   events     pending events, oldest first
 *   lanes      the events of one name: how many wait, and the server's last answer
 *   rejected   rejected events and lines, each with the reason
 *   positions  places in the followed files
 *   totals     counters over the life of the state folder, and the last serial given
 */
#ifndef STEEP_STORE_H
#define STEEP_STORE_H

#include "sql.h"

enum { STORE_PAGE_BYTES = 4096 };

/*
 * Opens the database of a folder, or makes it; the journal is copied into it
 * after so many pages. A damaged one is renamed, and what can be read of it is
 * copied to a new one. NULL after a line in the log. Close with sqlite3_close.
 */
sqlite3 *store_open(const char *folder, int journal_pages) MUST_CHECK;

/* Opens it for a command, which may change it or not. NULL with the reason. */
sqlite3 *store_visit(const char *folder, bool is_changed,
                     char why[static SQL_PROBLEM_BYTES]) MUST_CHECK;

/* Copies the journal into the database and empties it, unless someone is reading now. */
void store_empty_journal(sqlite3 *database);

#endif
