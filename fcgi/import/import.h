/*
 * steepctl events import: events from standard input, one JSON object a line, stored as a
 * monitor's batches are. What is there already is skipped, so an import that ended early can
 * be run again.
 */
#ifndef STEEP_IMPORT_H
#define STEEP_IMPORT_H

#include <stdbool.h>

/*
 * Reads standard input to its end and prints what became of the events; on standard error
 * each line that was rejected, and the progress, unless it is quiet. The PG* variables of the
 * environment say where the database is. Returns main's status: EXIT_FAILURE if a line was
 * rejected, or if it ended early.
 */
int import_main(bool is_quiet);

#endif
