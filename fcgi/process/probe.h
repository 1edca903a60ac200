/*
 * Runs the program's own function for no event, so that a fault of the database shows
 * before a request meets it: every 5 s without a success, every second after a failure.
 * Each time it connects anew, because new connections may fail where old ones do not, and
 * on a thread of its own, because it may wait for a lock. The outcome goes to
 * process/results.h, and a failure into the log, once for each SQLSTATE.
 */
#ifndef STEEP_PROBE_H
#define STEEP_PROBE_H

struct probe;

/* What to run. */
struct probe_plan {
    const char *name; /* the connection's, in pg_stat_activity */
    const char *sql;  /* changes nothing */
};

/* Starts the thread, which ends once stop_fd is readable; NULL if that fails. */
struct probe *probe_start(const struct probe_plan *plan, int stop_fd);

/* Waits for the thread's end and frees; takes NULL. */
void probe_join(struct probe *probe);

#endif
