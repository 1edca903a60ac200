/*
 * The scope of a token: the sources that it sees, as PostgreSQL gave them and takes them back.
 * It does not change, and is shared: by the keyring, and by the requests that have the token,
 * which keep it until they are answered. Any thread may call this.
 */
#ifndef STEEP_SCOPE_H
#define STEEP_SCOPE_H

#include "base/attributes.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* A text[] in PostgreSQL's binary form (array_send, array_recv). */
struct scope_array {
    const unsigned char *bytes;
    size_t length;
};

/* NULL in place of a scope means all sources. */
struct scope {
    atomic_int users;
    struct scope_array names;    /* of sources */
    struct scope_array prefixes; /* beginnings of such names */
};

/* Copies the arrays; NULL if out of memory. The caller frees with scope_release. */
struct scope *scope_new(struct scope_array names, struct scope_array prefixes) MUST_CHECK;

/* One more user of a scope, who releases it too. Takes and returns NULL. */
struct scope *scope_share(struct scope *scope) MUST_CHECK;

/* Ends a use of a scope, and frees it after the last one. Takes NULL. */
void scope_release(struct scope *scope);

/* Whether two are of the same names and prefixes, in the same order; or both NULL. */
bool scope_equal(const struct scope *a, const struct scope *b) MUST_CHECK;

#endif
