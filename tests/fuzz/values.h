/* What is worth trying in the places of an event. */
#ifndef STEEP_FUZZ_VALUES_H
#define STEEP_FUZZ_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TEXT_BYTES = 2048 };

/* A text that is put together; what no longer fits is left out. */
struct text {
    size_t length;
    char bytes[TEXT_BYTES];
};

/* What a place in an event takes. */
enum value_kind {
    VALUE_ANY,
    VALUE_ID,
    VALUE_SOURCE,
    VALUE_TIMESTAMP,
    VALUE_TYPE,
    VALUE_PAYLOAD,
    VALUE_NAME
};

/* Begins a row of draws; the same seed gives the same ones. */
void values_seed(uint32_t seed);

/* A number below another one. */
uint32_t values_draw(uint32_t below);

void values_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a value, mostly one that the place takes. */
void values_add_value(struct text *text, enum value_kind kind);

/* Adds a name with its quotes: of a member of an event, or of whatever else. */
void values_add_name(struct text *text, bool is_top);

/* Adds a member: one that an event has, or another. */
void values_add_member(struct text *text, bool is_top);

/* Adds an event that is mostly good, of source macbook. */
void values_add_event(struct text *text);

/* What the member with this name takes; VALUE_ANY for a name that says nothing. */
enum value_kind values_kind(const char *name, size_t length);

#endif
