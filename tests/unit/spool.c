#include "monitor/spool.h"
#include "folder.h"
#include "monitor/cursor.h"
#include "monitor/outgoing.h"
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char FIRST[] = "0000000000000001.segment";

enum { MIB = 1024 * 1024, EVENTS = 24, EVENT_BYTES = 512, FILE_BYTES = 64 * 1024 };

static unsigned char recorded[FILE_BYTES];
static struct outgoing *outgoing;

/* The event with a number: a length of its own, and text beyond ASCII. */
static size_t make_event(size_t number, char text[static EVENT_BYTES])
{
    int length = snprintf(text, EVENT_BYTES, "{\"id\":\"evt_%zu\",\"payload\":{\"a\":\"", number);

    for (size_t i = 0; i < number * 7 % 90; i++)
        length += snprintf(text + length, 8, "%s", i % 9 == 0 ? "ä" : "x");
    length += snprintf(text + length, 8, "\"}}");
    return (size_t)length;
}

static struct position place_of(size_t number, bool is_followed)
{
    struct position position = {0};

    if (is_followed)
        position = (struct position){1, 2, number * 100, number, number * 77, 3};
    return position;
}

static void open_spool(struct spool *spool, uint64_t limit, bool is_blocking)
{
    assert_true(spool_open(spool, dup(folder_file()), limit, is_blocking));
}

static void append(struct spool *spool, size_t from, size_t to, bool is_followed)
{
    for (size_t number = from; number <= to; number++) {
        char text[EVENT_BYTES];
        size_t length = make_event(number, text);
        struct position position = place_of(number, is_followed);

        assert_int_equal(spool_append(spool, text, length, &position), SPOOL_WRITTEN);
    }
}

/* Leaves a spool as a killed process does: events up to the first number are synced. */
static size_t record_spool(size_t synced, bool is_followed)
{
    struct spool spool;

    folder_empty();
    open_spool(&spool, 256 * MIB, false);
    append(&spool, 1, synced, is_followed);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
    assert_true(spool_sync(&spool));
    append(&spool, synced + 1, EVENTS, is_followed);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
    spool_close(&spool);
    return folder_read(FIRST, recorded, sizeof(recorded));
}

/* Writes such a spool with the bytes given. */
static void restore(const unsigned char *bytes, size_t length)
{
    folder_empty();
    folder_write(FIRST, bytes, length);
    folder_forget_log();
}

/* The number of the event in a batch. */
static size_t number_at(size_t index)
{
    const char *text = outgoing->body + outgoing->events[index].offset;
    char expected[EVENT_BYTES];
    size_t number = (size_t)strtoull(text + strlen("{\"id\":\"evt_"), NULL, 10);
    size_t length = make_event(number, expected);

    assert_int_equal(outgoing->events[index].length, length);
    assert_memory_equal(text, expected, length);
    return number;
}

static void load(struct spool *spool)
{
    outgoing = outgoing_new(spool->folder);
    assert_non_null(outgoing);
    assert_true(outgoing_load(outgoing, spool, BATCH_EVENTS));
}

static void unload(struct spool *spool)
{
    outgoing_free(outgoing);
    spool_close(spool);
}

/* Where the record of each event ends in the recorded file; number 0 is the position's. */
static void find_ends(size_t length, size_t ends[static EVENTS + 1])
{
    size_t at = SEGMENT_HEADER_BYTES;

    for (size_t i = 0; i <= EVENTS; i++) {
        struct record record;

        assert_int_equal(record_decode(recorded + at, length - at, &record), RECORD_WHOLE);
        at += record_size(record.length);
        ends[i] = at;
    }
    assert_int_equal(at, length);
}

static void recovers_all_whole_records_wherever_the_file_ends(void **state)
{
    size_t ends[EVENTS + 1];
    size_t length = record_spool(5, true);
    (void)state;
    find_ends(length, ends);
    for (size_t cut = 0; cut <= length; cut++) {
        struct spool spool;
        size_t whole = 0;
        bool is_torn = true;

        while (whole < EVENTS && ends[whole + 1] <= cut)
            whole++;
        for (size_t i = 0; i <= EVENTS; i++)
            is_torn = is_torn && cut != ends[i];
        restore(recorded, cut);
        open_spool(&spool, 256 * MIB, false);
        assert_int_equal(spool_waiting(&spool), whole);
        assert_int_equal(spool.position.line, whole);
        assert_int_equal(spool.position.tail, whole * 77);
        if (cut > SEGMENT_HEADER_BYTES)
            assert_int_equal(folder_logged("event=spool_recovered"), is_torn);

        /* What comes now follows what was there, now and after another start. */
        append(&spool, whole + 1, whole + 1, true);
        assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
        spool_close(&spool);
        open_spool(&spool, 256 * MIB, false);
        load(&spool);
        assert_int_equal(outgoing->count, whole + 1);
        for (size_t i = 0; i <= whole; i++)
            assert_int_equal(number_at(i), i + 1);
        unload(&spool);
    }
}

/* Opens a damaged spool and counts what is missing; all else must be there, in order. */
static size_t count_lost(size_t events)
{
    struct spool spool;
    size_t lost = 0;
    size_t next = 1;

    open_spool(&spool, 256 * MIB, false);
    load(&spool);
    for (size_t i = 0; i < outgoing->count; i++) {
        size_t number = number_at(i);

        assert_true(number >= next);
        lost += number - next;
        next = number + 1;
    }
    lost += events + 1 - next;
    unload(&spool);
    return lost;
}

static void loses_at_most_one_record_to_a_flipped_bit(void **state)
{
    size_t length = record_spool(5, false);
    (void)state;
    for (size_t at = 0; at < length; at++) {
        for (int bit = 0; bit < 8; bit += 3) {
            recorded[at] ^= (unsigned char)(1 << bit);
            restore(recorded, length);
            assert_true(count_lost(EVENTS) <= 1);
            assert_true(folder_logged("event=spool_recovered"));
            recorded[at] ^= (unsigned char)(1 << bit);
        }
    }
}

/* After a cut, the event with this number is the last one that another start finds. */
static void assert_goes_on(struct spool *spool, size_t number)
{
    append(spool, number, number, true);
    assert_int_equal(spool_flush(spool), SPOOL_WRITTEN);
    unload(spool);
    open_spool(spool, 256 * MIB, false);
    load(spool);
    assert_int_equal(outgoing->count, number);
    assert_int_equal(number_at(number - 1), number);
}

static void discards_what_can_be_read_again_from_a_followed_file(void **state)
{
    size_t ends[EVENTS + 1];
    size_t length = record_spool(5, true);
    (void)state;
    find_ends(length, ends);
    for (size_t at = ends[0]; at < length; at++) {
        struct spool spool;
        size_t number = 1;

        while (ends[number] <= at)
            number++;
        recorded[at] ^= 0x10;
        restore(recorded, length);
        open_spool(&spool, 256 * MIB, false);
        load(&spool);
        assert_true(folder_logged("event=spool_recovered"));
        if (number <= 5) {
            /* It was on the disk already, and may have been sent: what follows stays. */
            assert_int_equal(outgoing->count, EVENTS - 1);
            assert_int_equal(spool.position.line, EVENTS);
        } else {
            assert_int_equal(outgoing->count, number - 1);
            assert_int_equal(spool.position.line, number - 1);
            assert_goes_on(&spool, number);
        }
        unload(&spool);
        recorded[at] ^= 0x10;
    }
}

static void keeps_events_of_a_stream_after_those_of_a_file(void **state)
{
    struct spool spool;
    size_t length;
    (void)state;
    open_spool(&spool, 256 * MIB, false);
    append(&spool, 1, 5, true);
    append(&spool, 6, EVENTS, false);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
    spool_close(&spool);
    length = folder_read(FIRST, recorded, sizeof(recorded));
    recorded[length / 2] ^= 1;
    restore(recorded, length);
    assert_int_equal(count_lost(EVENTS), 1);
}

static void continues_after_acknowledged_events(void **state)
{
    struct spool spool;
    struct cursor cursor;
    (void)state;
    open_spool(&spool, 256 * MIB, false);
    append(&spool, 1, EVENTS, false);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
    load(&spool);
    outgoing_shorten(outgoing, 10);
    spool_forget(&spool, &outgoing->end, 10);
    assert_int_equal(spool_waiting(&spool), EVENTS - 10);
    unload(&spool);

    assert_int_equal(cursor_read(folder_file(), &cursor), CURSOR_READ);
    assert_int_equal(cursor.sent, 10);
    open_spool(&spool, 256 * MIB, false);
    load(&spool);
    assert_int_equal(outgoing->count, EVENTS - 10);
    assert_int_equal(number_at(0), 11);
    unload(&spool);
}

static void sends_all_again_if_the_cursor_is_damaged(void **state)
{
    char text[256];
    size_t length;
    (void)state;
    continues_after_acknowledged_events(state);
    length = folder_read("cursor", text, sizeof(text));
    for (size_t at = 0; at < length; at++) {
        struct spool spool;

        text[at] ^= 1;
        folder_write("cursor", text, length);
        open_spool(&spool, 256 * MIB, false);
        assert_int_equal(spool_waiting(&spool), EVENTS);
        spool_close(&spool);
        text[at] ^= 1;
    }
}

static void removes_events_from_a_batch(void **state)
{
    struct spool spool;
    char expected[EVENT_BYTES * 2];
    size_t length;
    (void)state;
    open_spool(&spool, 256 * MIB, false);
    append(&spool, 1, 4, false);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
    load(&spool);
    outgoing_remove(outgoing, 3);
    outgoing_remove(outgoing, 0);
    assert_int_equal(outgoing->count, 2);
    expected[0] = '[';
    length = 1 + make_event(2, expected + 1);
    expected[length++] = ',';
    length += make_event(3, expected + length);
    expected[length++] = ']';
    assert_int_equal(outgoing->length, length);
    assert_memory_equal(outgoing->body, expected, length);

    /* The one that was taken out goes with the one before it. */
    outgoing_shorten(outgoing, 2);
    assert_int_equal(outgoing->end.serial, 5);
    outgoing_shorten(outgoing, 1);
    assert_int_equal(outgoing->end.serial, 3);
    outgoing_remove(outgoing, 0);
    assert_int_equal(outgoing->count, 0);
    unload(&spool);
}

/* Appends large events until something other than success comes back, or so many are in. */
static size_t fill(struct spool *spool, size_t most, enum spool_verdict *verdict)
{
    static char text[32 * 1024];
    const struct position nowhere = {0};
    size_t count = 0;

    memset(text, 'x', sizeof(text));
    *verdict = SPOOL_WRITTEN;
    while (count < most) {
        *verdict = spool_append(spool, text, sizeof(text), &nowhere);
        if (*verdict != SPOOL_WRITTEN)
            break;
        count++;
        *verdict = spool_flush(spool);
        if (*verdict != SPOOL_WRITTEN)
            break;
    }
    return count;
}

static void drops_and_counts_the_oldest_events_when_full(void **state)
{
    struct spool spool;
    enum spool_verdict verdict;
    uint64_t bytes = 0;
    (void)state;
    open_spool(&spool, MIB, false);
    assert_int_equal(fill(&spool, 100, &verdict), 100);
    for (size_t i = 0; i < spool.count; i++)
        bytes += spool.segments[i].bytes;
    assert_true(bytes <= MIB);
    assert_true(spool_dropped(&spool) > 0);
    assert_int_equal(spool_waiting(&spool) + spool_dropped(&spool), 100);
    assert_true(folder_logged("event=spool_dropped"));
    load(&spool);
    assert_int_equal(outgoing->end.serial, 100 - spool_waiting(&spool) + 1 + outgoing->count);
    unload(&spool);
}

static void blocks_when_full_if_configured(void **state)
{
    struct spool spool;
    enum spool_verdict verdict;
    size_t count, more;
    (void)state;
    open_spool(&spool, MIB, true);
    count = fill(&spool, 100, &verdict);
    assert_int_equal(verdict, SPOOL_FULL);
    assert_int_equal(spool_dropped(&spool), 0);
    assert_int_equal(spool_flush(&spool), SPOOL_FULL);

    /* The last of them was taken, and is written once there is room. */
    load(&spool);
    spool_forget(&spool, &outgoing->end, outgoing->count);
    more = fill(&spool, 100, &verdict);
    assert_true(more > 0);
    assert_int_equal(spool.pending_serial, count + more + 1);
    unload(&spool);
}

static void finds_no_record_in_noise(void **state)
{
    unsigned char noise[4096];
    struct spool spool;
    (void)state;
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (unsigned char)(i * 31 % 251);
    memset(noise + 1000, 0xf5, 1000);
    restore(noise, sizeof(noise));
    open_spool(&spool, 256 * MIB, false);
    assert_int_equal(spool_waiting(&spool), 0);
    append(&spool, 1, 3, false);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
    load(&spool);
    assert_int_equal(outgoing->count, 3);
    unload(&spool);
}

static void keeps_the_position_after_everything_was_sent(void **state)
{
    struct spool spool;
    enum spool_verdict verdict;
    (void)state;
    open_spool(&spool, MIB, false);
    append(&spool, 1, 3, true);
    assert_int_equal(fill(&spool, 40, &verdict), 40);
    assert_true(spool.count > 1);
    while (spool_waiting(&spool) > 0) {
        load(&spool);
        spool_forget(&spool, &outgoing->end, outgoing->count);
        outgoing_free(outgoing);
    }
    assert_int_equal(spool.count, 1);
    /* As if killed once the last segment was begun: there is nothing else left. */
    assert_int_equal(ftruncate(spool.file, SEGMENT_HEADER_BYTES + (off_t)record_size(0)), 0);
    spool_close(&spool);
    open_spool(&spool, MIB, false);
    assert_int_equal(spool.position.line, 3);
    assert_int_equal(spool.next_serial, 44);
    spool_close(&spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(recovers_all_whole_records_wherever_the_file_ends,
                                        folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(loses_at_most_one_record_to_a_flipped_bit, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(discards_what_can_be_read_again_from_a_followed_file,
                                        folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(continues_after_acknowledged_events, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(sends_all_again_if_the_cursor_is_damaged, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(removes_events_from_a_batch, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(drops_and_counts_the_oldest_events_when_full, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(blocks_when_full_if_configured, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(finds_no_record_in_noise, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(keeps_events_of_a_stream_after_those_of_a_file, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(keeps_the_position_after_everything_was_sent, folder_make,
                                        folder_remove),
    };

    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
