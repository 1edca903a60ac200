/* Interesting values for the members of an event. */
#ifndef STEEP_FUZZ_VALUES_H
#define STEEP_FUZZ_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TEXT_BYTES = 2048 };

/* A text under construction; what does not fit is left out. */
struct text {
    size_t length;
    char bytes[TEXT_BYTES];
};

/* The kinds of values in an event. */
enum value_kind {
    VALUE_ANY,
    VALUE_ID,
    VALUE_SOURCE,
    VALUE_TIMESTAMP,
    VALUE_TYPE,
    VALUE_PAYLOAD,
    VALUE_NAME
};

/* Seeds the random numbers; the same seed gives the same numbers. */
void values_seed(uint32_t seed);

/* A random number less than below. */
uint32_t values_draw(uint32_t below);

void values_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a value, usually a valid one of this kind. */
void values_add_value(struct text *text, enum value_kind kind);

/* Adds a quoted name, usually of a member of an event if is_top. */
void values_add_name(struct text *text, bool is_top);

/* Adds a member, usually of an event if is_top. */
void values_add_member(struct text *text, bool is_top);

/* Adds an event of source macbook that is usually valid. */
void values_add_event(struct text *text);

/* The kind of the member with this name; VALUE_ANY if the name is unknown. */
enum value_kind values_kind(const char *name, size_t length);

#endif
