/*
 * The scanner walks the JSON array of a batch (RFC 8259) once, without building
 * anything. It finds the bytes of each event and of the members that the rules
 * look at, and it alone judges whether an event is JSON.
 */
#ifndef STEEP_SCAN_H
#define STEEP_SCAN_H

#include "event/event.h"

#include <stdbool.h>
#include <stddef.h>

enum scan_member {
    SCAN_ID,
    SCAN_SOURCE,
    SCAN_TIMESTAMP,
    SCAN_EVENT_TYPE,
    SCAN_TYPE,
    SCAN_PAYLOAD,
    SCAN_MEMBERS
};

/* One element of the array. The texts point into the body. */
struct scan_event {
    const char *text; /* without the white space around it */
    size_t length;
    size_t depth;     /* levels of objects and arrays; 0 for a scalar */
    size_t nodes;     /* objects and arrays */
    bool has_control; /* a string contains a raw control character */

    /*
     * It conforms to RFC 8259. Three faults count against is_storable
     * instead: a raw control character other than NUL in a string, NaN and
     * Infinity, and numbers such as 01, 1. and -.5. Undefined for an event of
     * more than 64 levels.
     */
    bool is_json;

    /*
     * PostgreSQL's jsonb stores it: it has no U+0000, no lone surrogate and no
     * number of more than 16383 fraction digits; and a double holds each of its
     * numbers. Undefined for what is not JSON.
     */
    bool is_storable;

    /*
     * The values of an object's members, as they are written: a string with its
     * quotes and escapes. The last of equal names counts, as for jsonb; no text
     * where there is none. Undefined for what is not JSON.
     */
    struct event_text members[SCAN_MEMBERS];
};

struct scan {
    const char *at;
    const char *end;
    bool is_first;
};

enum scan_step { SCAN_EVENT, SCAN_END, SCAN_BROKEN };

/* Begins with a body. body[length] must be a readable NUL. */
void scan_begin(struct scan *scan, const char *body, size_t length);

/*
 * Finds the next event. SCAN_END: there is no other, and nothing but white
 * space follows the array. SCAN_BROKEN: the body is no array, or the end of an
 * event can't be found.
 */
enum scan_step scan_next(struct scan *scan, struct scan_event *event);

#endif
