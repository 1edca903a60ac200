/*
 * The hosts of the PG* variables, for all connections of a program: in which order to try
 * them, and which of them did not answer or lag too far behind. The choice is libpq's where there
 * is one host, or the lists have an empty element, different lengths, or more than HOSTS_MOST
 * hosts.
 *
 * libpq has the same lists and target_session_attrs. But its asynchronous mode has no time limit
 * for each host, and no mode tries the next host after an error such as a failed login.
 *
 * Any thread may call these, except hosts_limit_age.
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

/*
 * Sets the age of data above which a standby is not used, in milliseconds; 30 s at first. Before
 * the threads start.
 */
void hosts_limit_age(int ms);

/* How many hosts there are. */
int hosts_count(void);

/*
 * Writes the attempts in their order, and returns how many. Hosts that did not answer or lag come
 * last; where attempts are for one kind of server and then the other, a host that lags is tried
 * only as the primary that it may have become. Every 10 s one caller tries a host as if it were
 * good. prefers_primary: where target_session_attrs allows both kinds, the primary comes first.
 */
int hosts_choose(struct hosts_choice choices[static HOSTS_CHOICES_MOST],
                 bool prefers_primary) MUST_CHECK;

/* A choice led to a session. */
void hosts_note_answer(const struct hosts_choice *choice);

/* A host answered, but is not the kind of server that was wanted. */
void hosts_note_other(int host);

/* A host did not answer in time. */
void hosts_note_silence(int host);

/*
 * Notes the age of the data that a standby showed, in microseconds, INT64_MAX if unknown. True if
 * that is too old: what it showed must not be used. A line in the log tells of each change.
 */
bool hosts_note_age(int host, int64_t age_us) MUST_CHECK;

/* A number that grows each time the host is found silent or behind. */
int hosts_epoch(int host);

/*
 * Whether a connection that was made in an epoch must not be used any more: its host is behind,
 * or is silent while another one serves. Without another, the host may only be slow.
 */
bool hosts_is_left(int host, int epoch);

/* Whether the host is known not to answer. */
bool hosts_is_silent(int host);

#endif
