#include "monitor/recovery.h"
#include "folder.h"
#include "monitor/cursor.h"
#include "monitor/outgoing.h"
#include "monitor/spool.h"
#include "unit.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static const char FIRST[] = "0000000000000001.segment";
static const char SECOND[] = "0000000000000002.segment";
static const char THIRD[] = "0000000000000003.segment";

enum { MIB = 1024 * 1024, FILE_BYTES = 4096, SEGMENT_EVENTS = 3, FORGOTTEN = 4000 };

static struct spool spool;

static void open_spool(void)
{
    assert_true(spool_open(&spool, dup(folder_file()), 256 * MIB, false));
}

static void append_from_file(uint64_t number)
{
    const struct position position = {1, 2, number * 100, number, number * 77, 3};

    assert_int_equal(spool_append(&spool, "{}", 2, &position), SPOOL_WRITTEN);
    assert_int_equal(spool_flush(&spool), SPOOL_WRITTEN);
}

/* A segment as rotating begins it, with so many events behind; its length. */
static size_t make_segment(unsigned char *bytes, uint64_t number, uint64_t first, uint64_t events)
{
    size_t length = SEGMENT_HEADER_BYTES;

    segment_encode_header(number, first, bytes);
    for (uint64_t i = 0; i <= events; i++) {
        const uint64_t line = first + i - 1;
        const struct record record = {.flags = i == 0 ? 0 : RECORD_EVENT | RECORD_FOLLOWED,
                                      .serial = i == 0 ? first : line,
                                      .position = {1, 2, line * 100, line, line * 77, 3},
                                      .text = "{}",
                                      .length = i == 0 ? 0 : 2};

        record_encode(&record, bytes + length);
        length += record_size(record.length);
    }
    return length;
}

static void recovers_if_the_next_segment_is_incomplete(void **state)
{
    unsigned char first[FILE_BYTES], second[FILE_BYTES];
    const size_t length = make_segment(first, 1, 1, SEGMENT_EVENTS);
    const size_t begun = make_segment(second, 2, SEGMENT_EVENTS + 1, 0);
    (void)state;
    for (size_t cut = 0; cut <= begun; cut++) {
        struct recovery recovery;

        folder_empty();
        folder_write(FIRST, first, length);
        folder_write(SECOND, second, cut);
        open_spool();
        assert_int_equal(spool_waiting(&spool), SEGMENT_EVENTS);
        assert_int_equal(spool.position.line, SEGMENT_EVENTS);
        append_from_file(SEGMENT_EVENTS + 1);
        spool_close(&spool);

        assert_true(recovery_run(&recovery, folder_file(), false));
        assert_int_equal(recovery.next_serial, SEGMENT_EVENTS + 2);
        assert_int_equal(recovery.position.line, SEGMENT_EVENTS + 1);
        recovery_free(&recovery);
    }
}

/* All that is known of a segment without a header and records is where the next one begins. */
static void counts_the_events_lost_with_a_segment_of_noise(void **state)
{
    unsigned char bytes[FILE_BYTES];
    struct recovery recovery;
    (void)state;
    folder_write(FIRST, bytes, make_segment(bytes, 1, 1, SEGMENT_EVENTS));
    memset(bytes, 'x', sizeof(bytes));
    folder_write(SECOND, bytes, sizeof(bytes));
    folder_write(THIRD, bytes, make_segment(bytes, 3, 2 * SEGMENT_EVENTS + 1, SEGMENT_EVENTS));
    assert_true(recovery_run(&recovery, folder_file(), false));
    assert_int_equal(recovery.count, 3);
    assert_int_equal(recovery.segments[1].first_serial, 2 * SEGMENT_EVENTS + 1);
    assert_int_equal(recovery.next_serial, 3 * SEGMENT_EVENTS + 1);
    recovery_free(&recovery);
}

/* The segment that the cursor is in may be damaged or gone, with others before it still there. */
static void recovers_if_the_segment_of_the_cursor_is_lost(void **state)
{
    const struct cursor cursor = {{2, 100, 2 * SEGMENT_EVENTS + 1}, 2 * SEGMENT_EVENTS};
    unsigned char bytes[FILE_BYTES];
    (void)state;
    for (size_t left = 0; left <= FILE_BYTES; left += FILE_BYTES) {
        struct outgoing *outgoing = outgoing_new(folder_file());

        folder_empty();
        folder_write(FIRST, bytes, make_segment(bytes, 1, 1, SEGMENT_EVENTS));
        memset(bytes, 'x', sizeof(bytes));
        if (left > 0)
            folder_write(SECOND, bytes, left);
        assert_true(cursor_write(folder_file(), &cursor));
        open_spool();
        assert_int_equal(spool_waiting(&spool), 0);
        append_from_file(1);
        assert_int_equal(spool_waiting(&spool), 1);
        assert_non_null(outgoing);
        assert_true(outgoing_load(outgoing, &spool, BATCH_EVENTS));
        assert_int_equal(outgoing->count, 1);
        outgoing_free(outgoing);
        spool_close(&spool);
    }
}

static void *forget_again_and_again(void *context)
{
    const struct spool_place *place = context;

    for (int i = 0; i < FORGOTTEN; i++)
        spool_forget(&spool, place, 1);
    return NULL;
}

/* On a full disk the writer forgets as well, while the reader may be at it. */
static void writes_the_cursor_one_at_a_time(void **state)
{
    struct spool_place place;
    struct cursor cursor;
    pthread_t other;
    (void)state;
    open_spool();
    place = spool.cursor;
    assert_int_equal(pthread_create(&other, NULL, forget_again_and_again, &place), 0);
    forget_again_and_again(&place);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_false(folder_logged("event=spool_error"));
    assert_int_equal(cursor_read(folder_file(), &cursor), CURSOR_READ);
    assert_int_equal(cursor.sent, 2 * FORGOTTEN);
    spool_close(&spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(recovers_if_the_next_segment_is_incomplete, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(counts_the_events_lost_with_a_segment_of_noise, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(recovers_if_the_segment_of_the_cursor_is_lost, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(writes_the_cursor_one_at_a_time, folder_make,
                                        folder_remove),
    };

    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
