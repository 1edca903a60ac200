/*
 * Keeps a keyring up to date: a thread of its own reads what changed after each notification
 * of the database and every 5 s, or 4 without notifications, at most twice a second. It reads
 * everything first, when the database can't tell what changed, and every ten minutes, since a
 * change that was made with triggers disabled is not recorded. A failed or partial read never
 * replaces what is there, and nor does a standby's that may be older.
 *
 * Of several hosts it reads the primary, where one that is no standby may be used at all, and a
 * standby only while no primary answers.
 */
#ifndef STEEP_REFRESH_H
#define STEEP_REFRESH_H

#include "auth/keyring.h"
#include "db/database.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct refresh;

/* What to listen for, and how to read it. */
struct refresh_plan {
    const char *name;    /* the connection's, in pg_stat_activity */
    const char *channel; /* of notifications */
    /*
     * With the mark of the last read, or NULL, as its parameter: a row with a mark as text, and
     * NULL in the other columns, followed by rows of credentials; no row if that is unknown.
     */
    const char *sql;
    /* Adds a row to a draft; false if it can't be a credential, or if out of memory. */
    bool (*add)(const struct database *db, int row, struct keyring_draft *draft);
    const char *beat; /* a statement to run after each read, whose failure is ignored; or NULL */
};

/* Plans for the public keys of monitors, and for tokens. */
extern const struct refresh_plan REFRESH_KEYS;
extern const struct refresh_plan REFRESH_TOKENS;

/*
 * Starts the thread, which ends once stop_fd is readable; NULL if that fails.
 * The keyring must outlive it.
 */
struct refresh *refresh_start(const struct refresh_plan *plan, struct keyring *keyring,
                              int stop_fd);

/* Milliseconds since the last successful read; -1 before the first. From any thread. */
int64_t refresh_age_ms(const struct refresh *refresh);

/*
 * Whether that was in the last seconds and no read failed since, which also means
 * that the database can be reached. From any thread.
 */
bool refresh_is_current(const struct refresh *refresh);

/* Whether the last read failed. From any thread. */
bool refresh_is_failing(const struct refresh *refresh);

/* Waits for the thread's end and frees; takes NULL. */
void refresh_join(struct refresh *refresh);

#endif
