/* The spool's files, as a crash, a broken disk or somebody else has left them. */
#include "fuzz.h"
#include "monitor/recovery.h"

#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

enum { RECORDS = 4096 };

static const char SEGMENT[] = "0000000000000001.segment";
static const char CURSOR[] = "cursor";

static char path[] = "/dev/shm/steep-fuzz.XXXXXX";
static int folder = -1;

static uint64_t text_length(const uint8_t *record)
{
    return record[4] | (uint64_t)record[5] << 8 | (uint64_t)record[6] << 16 |
           (uint64_t)record[7] << 24;
}

/* Corrects the checksum of anything that looks like a record; random bytes would not have it. */
static void repair(uint8_t *bytes, size_t length)
{
    for (size_t at = SEGMENT_HEADER_BYTES; at + record_size(0) <= length; at++) {
        uint64_t check, size;

        if (memcmp(bytes + at, "\365sp", 3) != 0)
            continue;
        size = text_length(bytes + at);
        if (size > RECORD_TEXT_BYTES || at + record_size(size) > length)
            continue;
        check = record_check(bytes + at, RECORD_HEADER_BYTES + size);
        for (size_t i = 0; i < RECORD_CHECK_BYTES; i++)
            bytes[at + RECORD_HEADER_BYTES + size + i] = (uint8_t)(check >> (8 * i));
    }
}

/* Finds the records without a buffer, by trying each byte after the last record. */
static size_t find_records(const uint8_t *bytes, size_t length, size_t ends[static RECORDS])
{
    size_t count = 0;
    size_t at = SEGMENT_HEADER_BYTES;

    while (at < length && count < RECORDS) {
        struct record record;

        if (record_decode(bytes + at, length - at, &record) == RECORD_WHOLE) {
            require(record.length <= RECORD_TEXT_BYTES, "a text is not too long");
            at += record_size(record.length);
            ends[count++] = at;
        } else {
            at++;
        }
    }
    return count;
}

static void write_file(const char *name, const uint8_t *bytes, size_t length)
{
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    require(file >= 0 && write(file, bytes, length) == (ssize_t)length && close(file) == 0,
            "the file can be written");
}

/* The reader must find the same records, and skip each other byte once. */
static void check_reader(const uint8_t *bytes, size_t length, const size_t *ends, size_t count)
{
    struct segment_reader reader;
    struct record record;
    enum segment_step step;
    uint64_t passed = SEGMENT_HEADER_BYTES;
    size_t found = 0;

    require(segment_reader_init(&reader, folder), "memory can be allocated");
    require(segment_seek(&reader, 1, SEGMENT_HEADER_BYTES), "the file is there");
    while ((step = segment_next(&reader, length, &record)) == SEGMENT_RECORD ||
           step == SEGMENT_DAMAGED) {
        if (step == SEGMENT_DAMAGED) {
            require(reader.skipped > 0, "damage has a length");
            passed += reader.skipped;
            require(reader.offset == passed, "skipped bytes are counted");
            continue;
        }
        require(found < count && reader.offset == ends[found], "the reader finds the next record");
        require(memcmp(record.text, bytes + ends[found] - RECORD_CHECK_BYTES - record.length,
                       record.length) == 0,
                "its text is that of the file");
        passed = reader.offset;
        found++;
    }
    require(step == SEGMENT_END && found == count, "every record is found");
    require(passed + reader.skipped == length, "the remaining bytes are counted");
    segment_reader_free(&reader);
}

/* Recovery must keep a part of the file that ends after a record. */
static void check_recovery(size_t length, const size_t *ends, size_t count)
{
    struct recovery recovery;
    bool is_end = false;
    uint64_t kept;

    require(recovery_run(&recovery, folder, false), "the folder can be read");
    require(recovery.count == 1, "there is one segment");
    kept = recovery.segments[0].bytes;
    require(kept <= length, "nothing is added");
    is_end = kept == SEGMENT_HEADER_BYTES;
    for (size_t i = 0; i < count; i++)
        is_end = is_end || kept == ends[i];
    require(is_end, "it ends after a record");
    require(recovery.next_serial >= recovery.cursor.place.serial,
            "the cursor is not after the last record");
    require(recovery.must_rotate || recovery.cursor.place.offset <= kept,
            "the cursor is in the file");
    recovery_free(&recovery);
}

static void remove_folder(void)
{
    (void)unlinkat(folder, SEGMENT, 0);
    (void)unlinkat(folder, CURSOR, 0);
    (void)rmdir(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) // NOLINT(readability-non-const-parameter)
{
    (void)argc;
    (void)argv;
    require(sodium_init() >= 0, "libsodium can be used");
    require(mkdtemp(path) != NULL, "a folder can be made");
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require(folder >= 0 && atexit(remove_folder) == 0, "it can be opened");
    return 0;
}

/* The first byte: whether to repair checksums. The second: the length of the cursor's file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static size_t ends[RECORDS];
    uint8_t *bytes;
    size_t length, count;

    if (size < 2 || size < 2 + (size_t)data[1] + SEGMENT_HEADER_BYTES)
        return 0;
    length = size - 2 - data[1];
    bytes = (uint8_t *)copy_bytes(data + 2 + data[1], length);
    if ((data[0] & 1) != 0)
        repair(bytes, length);
    write_file(SEGMENT, bytes, length);
    write_file(CURSOR, data + 2, data[1]);
    count = find_records(bytes, length, ends);
    check_reader(bytes, length, ends, count);
    check_recovery(length, ends, count);
    free(bytes);
    return 0;
}
