/*
 * A record: what the spool's files are made of. It holds one event and the
 * place in the input behind the event's line, so that both are there after a
 * crash, or neither.
 *
 * Its mark begins with the byte F5, which never occurs in UTF-8: behind a
 * damaged record the next one is found by looking for it. Numbers are
 * little-endian; the check at the end is SipHash-2-4 of everything before it,
 * against accidents.
 *
 *    0  mark[3]     F5 's' 'p'
 *    3  flags       enum record_flag
 *    4  length      of the text
 *    8  serial      the event's number, counted from 1 over the spool's life
 *   16  time        when it was accepted: milliseconds since 1970
 *   24  position    six numbers, see struct position
 *   72  text
 *       check       8 bytes
 */
#ifndef STEEP_RECORD_H
#define STEEP_RECORD_H

#include "base/error.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RECORD_TEXT_BYTES = 64 * 1024,
    RECORD_HEADER_BYTES = 72,
    RECORD_CHECK_BYTES = 8,
    RECORD_BYTES = RECORD_HEADER_BYTES + RECORD_TEXT_BYTES + RECORD_CHECK_BYTES,
};

enum record_flag {
    RECORD_EVENT = 1,    /* without it, the record tells a position and has no text */
    RECORD_FOLLOWED = 4, /* the position is this record's own: it comes from a followed file */
    RECORD_SYNCED = 2,   /* what stands before it in its file was on the disk when it was written */
};

struct record {
    uint8_t flags;
    uint64_t serial; /* of a record without an event: the next event's */
    int64_t time_ms;
    struct position position;
    const char *text; /* not terminated */
    size_t length;
};

enum record_verdict {
    RECORD_WHOLE,
    RECORD_PART,    /* it may go on behind these bytes */
    RECORD_DAMAGED, /* no record begins here */
};

/* The bytes that a record with so much text takes. */
size_t record_size(size_t text_length);

/* Writes record_size(record->length) bytes; the text is at most RECORD_TEXT_BYTES. */
void record_encode(const struct record *record, unsigned char *out);

/* Reads the record that begins with these bytes; its text points into them. */
enum record_verdict record_decode(const unsigned char *bytes, size_t length,
                                  struct record *record) MUST_CHECK;

/* Where the next mark may begin behind the first of these bytes; length where there is none. */
size_t record_next_mark(const unsigned char *bytes, size_t length);

/* The check of some bytes, for whatever else is written beside records. */
uint64_t record_check(const void *bytes, size_t length);

#endif
