#include "record.h"

#include <endian.h>
#include <sodium.h>
#include <string.h>

_Static_assert(RECORD_CHECK_BYTES == crypto_shorthash_BYTES, "SipHash-2-4 has 64 bits");

static const unsigned char MARK[] = {0xf5, 's', 'p'};

enum {
    LENGTH = 4,
    SERIAL = 8,
    TIME = 16,
    DEVICE = 24,
    INODE = 32,
    OFFSET = 40,
    LINE = 48,
    TAIL = 56,
    SEEN = 64,
};

static void put(unsigned char *out, uint64_t number)
{
    number = htole64(number);
    memcpy(out, &number, sizeof(number));
}

static uint64_t get(const unsigned char *bytes)
{
    uint64_t number;

    memcpy(&number, bytes, sizeof(number));
    return le64toh(number);
}

static uint32_t get_length(const unsigned char *bytes)
{
    uint32_t number;

    memcpy(&number, bytes + LENGTH, sizeof(number));
    return le32toh(number);
}

uint64_t record_check(const void *bytes, size_t length)
{
    static const unsigned char KEY[crypto_shorthash_KEYBYTES] = "steep-monitor 1";
    unsigned char hash[crypto_shorthash_BYTES];

    crypto_shorthash(hash, bytes, length, KEY);
    return get(hash);
}

size_t record_size(size_t text_length)
{
    return RECORD_HEADER_BYTES + text_length + RECORD_CHECK_BYTES;
}

void record_encode(const struct record *record, unsigned char *out)
{
    const uint32_t length = htole32((uint32_t)record->length);
    const size_t checked = RECORD_HEADER_BYTES + record->length;

    memcpy(out, MARK, sizeof(MARK));
    out[sizeof(MARK)] = record->flags;
    memcpy(out + LENGTH, &length, sizeof(length));
    put(out + SERIAL, record->serial);
    put(out + TIME, (uint64_t)record->time_ms);
    put(out + DEVICE, record->position.device);
    put(out + INODE, record->position.inode);
    put(out + OFFSET, record->position.offset);
    put(out + LINE, record->position.line);
    put(out + TAIL, record->position.tail);
    put(out + SEEN, (uint64_t)record->position.seen_ms);
    if (record->length > 0)
        memcpy(out + RECORD_HEADER_BYTES, record->text, record->length);
    put(out + checked, record_check(out, checked));
}

enum record_verdict record_decode(const unsigned char *bytes, size_t length, struct record *record)
{
    size_t text_length;

    if (memcmp(bytes, MARK, length < sizeof(MARK) ? length : sizeof(MARK)) != 0)
        return RECORD_DAMAGED;
    if (length < RECORD_HEADER_BYTES)
        return RECORD_PART;
    text_length = get_length(bytes);
    if (text_length > RECORD_TEXT_BYTES)
        return RECORD_DAMAGED;
    if (length < record_size(text_length))
        return RECORD_PART;
    if (get(bytes + RECORD_HEADER_BYTES + text_length) !=
        record_check(bytes, RECORD_HEADER_BYTES + text_length))
        return RECORD_DAMAGED;

    *record = (struct record){
        .flags = bytes[sizeof(MARK)],
        .serial = get(bytes + SERIAL),
        .time_ms = (int64_t)get(bytes + TIME),
        .position = {.device = get(bytes + DEVICE),
                     .inode = get(bytes + INODE),
                     .offset = get(bytes + OFFSET),
                     .line = get(bytes + LINE),
                     .tail = get(bytes + TAIL),
                     .seen_ms = (int64_t)get(bytes + SEEN)},
        .text = (const char *)bytes + RECORD_HEADER_BYTES,
        .length = text_length,
    };
    return RECORD_WHOLE;
}

size_t record_next_mark(const unsigned char *bytes, size_t length)
{
    const unsigned char *next = length < 2 ? NULL : memchr(bytes + 1, MARK[0], length - 1);

    return next == NULL ? length : (size_t)(next - bytes);
}
