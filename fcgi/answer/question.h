/* A question: what a request asks, and which sources its token sees. */
#ifndef STEEP_QUESTION_H
#define STEEP_QUESTION_H

#include "auth/scope.h"
#include "base/attributes.h"
#include "http/query_string.h"

#include <stdbool.h>

struct question {
    struct query_string parameters;
    struct scope *scope; /* NULL: all sources */
};

/* Whether two are the same question, so that one answer is for both. */
bool question_equal(const struct question *a, const struct question *b) MUST_CHECK;

#endif
