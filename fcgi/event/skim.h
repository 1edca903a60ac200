/*
 * Skimming: most events are written as a JSON library writes them, and their
 * members can be read where they stand. json-c, which builds each value,
 * needs several times as long.
 */
#ifndef STEEP_SKIM_H
#define STEEP_SKIM_H

#include "event/event.h"
#include "event/splitter.h"

#include <stdbool.h>

/*
 * Reads an event whose tokens the splitter has found to be strict JSON's. It
 * points into the text.
 *
 * False says nothing about the event but that it must be read properly: it is
 * no object, breaks JSON's grammar (RFC 8259), nests deeper than 32 levels,
 * one of the names at its top or of the values read has an escape, stands there twice or
 * is of another type.
 */
bool skim_event(const struct splitter_element *text, struct event *event) MUST_CHECK;

#endif
