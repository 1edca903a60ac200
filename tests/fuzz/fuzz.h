/* Common to all fuzz targets. The names of libFuzzer's functions are given. */
#ifndef STEEP_FUZZ_H
#define STEEP_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The target: tests one input; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Optional: runs once before the first input; returns 0. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Optional: mutates an input in place; returns its new size. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

/* libFuzzer's own mutator, which changes bytes and inserts words of the dictionary. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Aborts if a property does not hold; libFuzzer saves the input. */
static inline void require(bool holds, const char *property)
{
    if (holds)
        return;
    fprintf(stderr, "broken: %s\n", property);
    abort();
}

/* A copy of exactly these bytes, so that the sanitizer detects a read past their end. Caller frees.
 */
static inline char *copy_bytes(const void *bytes, size_t length)
{
    char *copy = malloc(length);

    require(copy != NULL, "memory can be allocated");
    memcpy(copy, bytes, length);
    return copy;
}

/* The same with a terminating NUL. */
static inline char *copy_text(const void *bytes, size_t length)
{
    char *copy = malloc(length + 1);

    require(copy != NULL, "memory can be allocated");
    memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

#endif
