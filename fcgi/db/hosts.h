/*
 * The hosts of the PG* variables, for all connections of a program: in which order to try
 * them, and which of them did not answer or lag too far behind. With one host, or a list that
 * can't be taken apart, libpq is left to choose.
 *
 * libpq has the same lists and target_session_attrs, but not in its asynchronous mode a time
 * limit for each host, and in no mode a second host after an error other than a refused
 * connection.
 *
 * Any thread may call these.
 */
#ifndef STEEP_HOSTS_H
#define STEEP_HOSTS_H

#include "base/attributes.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    HOSTS_MOST = 8,
    HOSTS_CHOICES_MOST = 3 * HOSTS_MOST,
    HOSTS_ANSWER_MS = 1000, /* for a session, when there are others */
};

/* One attempt; its strings are libpq's parameters, NULL for the default. */
struct hosts_choice {
    int host; /* its number */
    const char *name, *address, *port;
    const char *attributes; /* target_session_attrs */
    bool is_second;         /* the primary, where a standby is preferred, or the reverse */
};

/* Sets the age of data at which a standby is no longer asked, in milliseconds; 30 s at first. */
void hosts_limit_age(int ms);

/* How many hosts there are. */
int hosts_count(void);

/*
 * Writes what to try, in this order, and returns how many. Hosts that did not answer come
 * last, and standbys that lag not at all; every 10 s one caller tries them all the same.
 * Where target_session_attrs allows either, prefers_primary has standbys tried after it.
 */
int hosts_choose(struct hosts_choice choices[static HOSTS_CHOICES_MOST],
                 bool prefers_primary) MUST_CHECK;

/* A choice led to a session. */
void hosts_note_answer(const struct hosts_choice *choice);

/* It answered, but is not what was wanted. */
void hosts_note_other(int host);

/* It did not answer in time. */
void hosts_note_silence(int host);

/*
 * The age of the data that a standby showed, INT64_MAX if unknown. True if that is too old:
 * what it showed must not be used. A line in the log tells of each change.
 */
bool hosts_note_age(int host, int64_t age_us) MUST_CHECK;

/* Changes when the host is found silent or behind. */
int hosts_epoch(int host);

/*
 * Whether a connection that was made in an epoch is not to be used any more: its host is behind,
 * or it is silent while another one serves. Without another, the host may only be slow.
 */
bool hosts_is_left(int host, int epoch);

/* Whether it is known not to answer. */
bool hosts_is_silent(int host);

#endif
