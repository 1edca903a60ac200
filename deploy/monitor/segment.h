/*
 * A segment: one file of the spool, a header and records. Segments are
 * numbered from 1; the highest is the one that is written.
 *
 *   0  "steepsp1"    8  number    16  first serial    24  check of these 24
 */
#ifndef STEEP_SEGMENT_H
#define STEEP_SEGMENT_H

#include "record.h"

enum {
    SEGMENT_HEADER_BYTES = 32,
    SEGMENT_NAME_BYTES = 24,
    SEGMENT_BUFFER_BYTES = 2 * RECORD_BYTES,
};

/* Writes the name of a segment's file: 16 hexadecimal digits and ".segment". */
void segment_name(uint64_t number, char name[static SEGMENT_NAME_BYTES + 1]);

/* The number in such a name; 0 for a name that is none. */
uint64_t segment_number(const char *name);

void segment_encode_header(uint64_t number, uint64_t first_serial,
                           unsigned char header[static SEGMENT_HEADER_BYTES]);

/* Reads the first serial from a header; false for one that is damaged or another segment's. */
bool segment_decode_header(const unsigned char *header, size_t length, uint64_t number,
                           uint64_t *first_serial) MUST_CHECK;

/* Reads records one after the other, with one buffer whatever waits. */
struct segment_reader {
    int folder;
    int file;        /* -1 before the first segment */
    uint64_t number; /* of the open segment */
    uint64_t offset; /* of the record that comes next */
    size_t start;    /* where it is in the buffer */
    size_t filled;
    uint64_t
        skipped; /* bytes passed over by the last SEGMENT_DAMAGED, left by the last SEGMENT_END */
    unsigned char *buffer;
};

enum segment_step {
    SEGMENT_RECORD,
    SEGMENT_DAMAGED, /* bytes that are no record were passed over; one follows */
    SEGMENT_END,     /* no whole record follows; reader->skipped bytes, torn ones, are left */
    SEGMENT_FAILED,  /* see errno */
};

/* Makes a reader of the folder's segments; it borrows the descriptor. False: no memory. */
bool segment_reader_init(struct segment_reader *reader, int folder) MUST_CHECK;
void segment_reader_free(struct segment_reader *reader);

/* Closes the open file, whose room on the disk would not be free before, were it removed. */
void segment_release(struct segment_reader *reader);

/* Goes to a record. False with errno: the file can't be opened (ENOENT: it was dropped). */
bool segment_seek(struct segment_reader *reader, uint64_t number, uint64_t offset) MUST_CHECK;

/*
 * Reads the next record of the segment's first end bytes; it points into the
 * reader and lives until the next call.
 */
enum segment_step segment_next(struct segment_reader *reader, uint64_t end, struct record *record);

#endif
