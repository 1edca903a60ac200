/* JSON whose numbers keep their value, to compare two texts of it. */
#ifndef STEEP_FUZZ_EXACT_H
#define STEEP_FUZZ_EXACT_H

#include <json-c/json.h>
#include <stddef.h>

/*
 * Reads strict JSON with json-c, each number as a string of its exact value:
 * 1e2 and 100.0 are both "#1e2". Caller frees with json_object_put.
 *
 * Requires that it is JSON, and that its numbers are ones that a double holds.
 */
struct json_object *exact_parse(const char *text, size_t length);

#endif
