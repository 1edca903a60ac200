#include "auth/scope.h"

#include <stdlib.h>
#include <string.h>

struct scope *scope_new(struct scope_array names, struct scope_array prefixes)
{
    struct scope *scope = malloc(sizeof(*scope) + names.length + prefixes.length);
    unsigned char *bytes;

    if (scope == NULL)
        return NULL;
    bytes = (unsigned char *)(scope + 1);
    memcpy(bytes, names.bytes, names.length);
    memcpy(bytes + names.length, prefixes.bytes, prefixes.length);
    atomic_init(&scope->users, 1);
    scope->names = (struct scope_array){bytes, names.length};
    scope->prefixes = (struct scope_array){bytes + names.length, prefixes.length};
    return scope;
}

struct scope *scope_share(struct scope *scope)
{
    if (scope != NULL)
        atomic_fetch_add(&scope->users, 1);
    return scope;
}

void scope_release(struct scope *scope)
{
    if (scope != NULL && atomic_fetch_sub(&scope->users, 1) == 1)
        free(scope);
}

static bool is_same(struct scope_array a, struct scope_array b)
{
    return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

bool scope_equal(const struct scope *a, const struct scope *b)
{
    return a == b || (a != NULL && b != NULL && is_same(a->names, b->names) &&
                      is_same(a->prefixes, b->prefixes));
}
