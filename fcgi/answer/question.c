#include "answer/question.h"

bool question_equal(const struct question *a, const struct question *b)
{
    return query_string_equal(&a->parameters, &b->parameters) && scope_equal(a->scope, b->scope);
}
