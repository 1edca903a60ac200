/*
 * Mutates a body so that it usually stays a batch of events, by replacing its
 * parts with interesting values.
 */
#ifndef STEEP_FUZZ_MUTATOR_H
#define STEEP_FUZZ_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

/* As LLVMFuzzerCustomMutator; an empty body becomes a batch of one event of source macbook. */
size_t mutator_change(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

#endif
