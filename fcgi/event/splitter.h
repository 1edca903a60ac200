/*
 * The splitter walks a JSON array (RFC 8259) without building anything: it
 * finds the bytes of each element and looks at every token on the way, not at
 * the grammar between them.
 */
#ifndef STEEP_SPLITTER_H
#define STEEP_SPLITTER_H

#include <stdbool.h>
#include <stddef.h>

struct splitter_element {
    const char *text; /* into the body, without the white space around it */
    size_t length;
    size_t depth;     /* levels of objects and arrays; 0 for a scalar */
    size_t nodes;     /* objects and arrays */
    bool has_control; /* a raw control character stands in a string */

    /*
     * Strict JSON doesn't have one of its tokens (a raw control character, NaN,
     * 01, an escape that is none), PostgreSQL's jsonb can't store it (U+0000,
     * a lone surrogate, more than 16383 fraction digits), or it is a number
     * that no double holds.
     */
    bool is_lax;
};

struct splitter {
    const char *at;
    const char *end;
    bool is_first;
};

enum splitter_step { SPLITTER_ELEMENT, SPLITTER_END, SPLITTER_BROKEN };

/* Begins with a body. body[length] must be a readable NUL. */
void splitter_begin(struct splitter *splitter, const char *body, size_t length);

/*
 * Finds the next element. SPLITTER_END after the last one, when nothing but
 * white space follows the array; SPLITTER_BROKEN where there is no array, or
 * no telling where an element ends.
 */
enum splitter_step splitter_next(struct splitter *splitter, struct splitter_element *element);

#endif
