/*
 * Changes a body so that it mostly stays a batch of events: what stands in its
 * places is replaced by what is worth trying there.
 */
#ifndef STEEP_FUZZ_MUTATOR_H
#define STEEP_FUZZ_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

/* As LLVMFuzzerCustomMutator; a body of no bytes becomes a batch of one event of source macbook. */
size_t mutator_change(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

#endif
