/* What every fuzz target begins with. libFuzzer's functions have its names. */
#ifndef STEEP_FUZZ_H
#define STEEP_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The target: tries one input; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Runs once before the first input, where a target has it; returns 0. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Changes an input in place, where a target knows better; returns its new size. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

/* The same by libFuzzer's own means: bytes, and words of a dictionary. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Ends the target where a property does not hold; libFuzzer keeps the input. */
static inline void require(bool holds, const char *property)
{
    if (holds)
        return;
    fprintf(stderr, "broken: %s\n", property);
    abort();
}

/* A copy of just these bytes, so that the sanitizer sees a read beyond them. Caller frees. */
static inline char *copy_bytes(const void *bytes, size_t length)
{
    char *copy = malloc(length);

    require(copy != NULL, "there is memory");
    memcpy(copy, bytes, length);
    return copy;
}

/* The same with a NUL behind them. */
static inline char *copy_text(const void *bytes, size_t length)
{
    char *copy = malloc(length + 1);

    require(copy != NULL, "there is memory");
    memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

#endif
