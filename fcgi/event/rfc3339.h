/*
 * Timestamps: the date-time of RFC 3339, section 5.6, in the range of
 * PostgreSQL's timestamptz.
 */
#ifndef STEEP_RFC3339_H
#define STEEP_RFC3339_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Parses a date-time with an offset, which must be the whole text: a real date
 * and time, T and Z in either case, or one space for the T, 1 to 30 fraction
 * digits if any, an offset of at most 15:59 either way, an instant in the years
 * 0001 to 9999 of UTC. The local year 0000 is refused even where its instant is
 * in the year 0001, since PostgreSQL has no such year. Second 60 is accepted
 * only at 23:59:60 UTC on the last of June or December, with a fraction of zero;
 * it is the first second of the next day.
 *
 * Writes microseconds since 1970-01-01T00:00:00Z, rounded as PostgreSQL
 * rounds, and returns true; otherwise returns false and writes nothing.
 */
bool rfc3339_parse(const char *text, size_t length, int64_t *microseconds);

#endif
