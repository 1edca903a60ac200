/* Parses JSON without changing the value of numbers, to compare two texts. */
#ifndef STEEP_FUZZ_EXACT_H
#define STEEP_FUZZ_EXACT_H

#include <json-c/json.h>
#include <stddef.h>

/*
 * Reads strict JSON with json-c, each number as a string of its exact value:
 * 1e2 and 100.0 are both "#1e2". Caller frees with json_object_put.
 *
 * Requires valid JSON with numbers in the range of a double.
 */
struct json_object *exact_parse(const char *text, size_t length);

#endif
