#include "monitor/spool.h"
#include "folder.h"
#include "monitor/store.h"
#include "unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1024 * 1024, EVENTS = 24, EVENT_BYTES = 512, DATABASE_BYTES = 256 * 1024 };

static const char DATABASE[] = "spool.db";
static const char NAME[] = "lap \"1\"";
static const struct lane LANE = {.id = 1};
static const char FILLED[] = "\"source\":\"lap \\\"1\\\"\",";

static struct spool spool;
static struct outgoing outgoing;
static struct answer answer;
static unsigned char recorded[DATABASE_BYTES];

/* The event with a number: a length of its own, and text beyond ASCII. */
static size_t make_event(size_t number, char text[static EVENT_BYTES])
{
    int length = snprintf(text, EVENT_BYTES, "{\"id\":\"evt_%zu\",\"payload\":{\"a\":\"", number);

    for (size_t i = 0; i < number * 7 % 90; i++)
        length += snprintf(text + length, 8, "%s", i % 9 == 0 ? "ä" : "x");
    length += snprintf(text + length, 8, "\"}}");
    return (size_t)length;
}

static void open_as(const char *name, uint64_t limit, bool is_blocking)
{
    assert_true(spool_open(&spool, folder_path(), name, limit, is_blocking));
}

static void open_spool(void)
{
    open_as(NAME, 256 * MIB, false);
}

static void flush_at(uint64_t line)
{
    const struct position position = {1, 2, line * 100, line, line * 77, 3};

    assert_int_equal(spool_flush(&spool, &position, line > 0, false), SPOOL_TAKEN);
}

static void add_as(size_t from, size_t to, bool has_source, bool has_timestamp, int64_t time)
{
    for (size_t number = from; number <= to; number++) {
        char text[EVENT_BYTES];
        const struct spool_item item = {.has_source = has_source,
                                        .has_timestamp = has_timestamp,
                                        .time = time,
                                        .text = text,
                                        .length = make_event(number, text)};

        assert_true(spool_add(&spool, &item));
    }
}

static void add(size_t from, size_t to)
{
    add_as(from, to, false, true, 1);
}

/* Finds the lane of a source and a boot, of which events wait. */
static struct lane find_lane(const char *source, const char *boot)
{
    struct lane found = {0};

    while (spool_next_lane(&spool, found.id, &found) > 0) {
        if (strcmp(found.source, source) == 0 && strcmp(found.boot, boot) == 0)
            return found;
    }
    fail_msg("no lane of \"%s\" and \"%s\"", source, boot);
    return found;
}

static void load_lane(struct lane *lane, int64_t from, size_t max)
{
    assert_true(spool_load(&spool, lane, from, max, &outgoing));
}

static void load(size_t max)
{
    struct lane lane = find_lane("", "");

    load_lane(&lane, 0, max);
}

/* The numbers of the events of the batch that was loaded. */
static size_t number_at(size_t index)
{
    const char *at = outgoing.body;

    for (size_t i = 0; i <= index; i++)
        at = strstr(at, "\"evt_") + strlen("\"evt_");
    return (size_t)strtoull(at, NULL, 10);
}

static bool settle(enum answer_action action)
{
    answer.action = action;
    answer.status = 200;
    return spool_settle(&spool, &LANE, &outgoing, &answer, "detail");
}

static long long ask(const char *sql)
{
    return (long long)sql_number(spool.database, sql);
}

static struct position read_position(void)
{
    struct position found = {0};

    assert_true(spool_positions(&spool, &found, 1) <= 1);
    return found;
}

static void keeps_events_with_the_position_behind_them(void **state)
{
    (void)state;
    open_spool();
    add(1, 5);
    assert_int_equal(spool_waiting(&spool), 0); /* not taken before the commit */
    flush_at(5);
    assert_int_equal(spool_waiting(&spool), 5);
    add(6, 7); /* lost with the process */
    spool_close(&spool);
    open_spool();
    assert_int_equal(spool_waiting(&spool), 5);
    assert_int_equal(read_position().line, 5);
    assert_int_equal(read_position().tail, 5 * 77);
    add(6, 6);
    flush_at(0); /* of a stream: the position of the file stays */
    assert_int_equal(read_position().line, 5);
    load(BATCH_EVENTS);
    assert_int_equal(outgoing.count, 6);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(number_at(i), i + 1);
    spool_close(&spool);
}

static void fills_in_the_source_in_front(void **state)
{
    char event[EVENT_BYTES], expected[2 * EVENT_BYTES];
    struct lane lane;
    (void)state;
    open_spool();
    add(1, 1);
    add_as(2, 2, true, true, 1);
    flush_at(2);
    load(BATCH_EVENTS);
    make_event(1, event);
    snprintf(expected, sizeof(expected), "[{%s%s]", FILLED, event + 1);
    assert_int_equal(outgoing.length, strlen(expected));
    assert_memory_equal(outgoing.body, expected, outgoing.length);
    lane = find_lane(NAME, "");
    load_lane(&lane, 0, BATCH_EVENTS);
    make_event(2, event);
    snprintf(expected, sizeof(expected), "[%s]", event);
    assert_int_equal(outgoing.length, strlen(expected));
    assert_memory_equal(outgoing.body, expected, outgoing.length);
    spool_close(&spool);
}

/* What has a name of its own keeps it; the rest is sent under the present one. */
static void sends_events_of_an_earlier_name_under_theirs(void **state)
{
    struct lane lane;
    (void)state;
    open_as("old", 256 * MIB, false);
    add_as(1, 3, true, true, 1);
    add(4, 6);
    flush_at(6);
    spool_close(&spool);

    open_as("new", 256 * MIB, false);
    add_as(7, 7, true, true, 1);
    flush_at(7);
    lane = find_lane("old", "");
    assert_string_equal(lane.name, "old");
    assert_int_equal(lane.waiting, 3);
    load_lane(&lane, 0, BATCH_EVENTS);
    assert_int_equal(outgoing.count, 3);
    assert_int_equal(number_at(0), 1);
    lane = find_lane("", "");
    assert_string_equal(lane.name, "new");
    load_lane(&lane, 0, BATCH_EVENTS);
    assert_int_equal(outgoing.count, 3);
    assert_int_equal(number_at(0), 4);
    assert_non_null(strstr(outgoing.body, "\"source\":\"new\""));
    assert_int_equal(find_lane("new", "").waiting, 1);
    assert_int_equal(ask("SELECT sum(waiting) FROM lanes WHERE name = 'old'"), 3);
    assert_int_equal(ask("SELECT sum(waiting) FROM lanes WHERE name = 'new'"), 4);
    spool_close(&spool);
}

static void dates_events_from_the_beginning_of_their_boot(void **state)
{
    const int64_t began = moment_now() - moment_uptime();
    struct stamp stamp = {0};
    struct lane lane;
    (void)state;
    open_spool();
    add_as(1, 1, false, false, 5000);
    flush_at(1);
    assert_true(
        sql_run(spool.database,
                "UPDATE lanes SET boot = 'earlier', began = 1770129300123 WHERE boot <> ''"));
    add_as(2, 2, false, false, 7000);
    flush_at(2);
    lane = find_lane("", "earlier");
    load_lane(&lane, 0, BATCH_EVENTS);
    assert_int_equal(outgoing.count, 1);
    assert_non_null(strstr(outgoing.body, "\"timestamp\":\"2026-02-03T14:35:05.123Z\""));
    /* Of a boot during which the clock was never set, nothing more is known. */
    assert_true(sql_run(spool.database, "UPDATE lanes SET began = 0"));
    lane = find_lane("", "earlier");
    load_lane(&lane, 0, BATCH_EVENTS);
    complete_stamp(&stamp, began);
    stamp.text[18] = '\0';
    assert_non_null(strstr(outgoing.body, stamp.text));
    lane = find_lane("", spool.boot);
    load_lane(&lane, 0, BATCH_EVENTS);
    /* To ten seconds. */
    stamp = (struct stamp){0};
    complete_stamp(&stamp, began + 7000);
    stamp.text[18] = '\0';
    assert_non_null(strstr(outgoing.body, stamp.text));
    /* Loading it again gives the same bytes. */
    assert_int_equal(find_lane("", spool.boot).began, lane.began);
    spool_close(&spool);
}

static void removes_stored_events_and_counts_them(void **state)
{
    (void)state;
    open_spool();
    add(1, EVENTS);
    flush_at(EVENTS);
    load(10);
    assert_int_equal(outgoing.count, 10);
    assert_true(settle(ANSWER_STORED));
    assert_int_equal(spool_waiting(&spool), EVENTS - 10);
    spool_close(&spool);
    open_spool();
    assert_int_equal(ask("SELECT sent FROM totals"), 10);
    assert_int_equal(spool_waiting(&spool), EVENTS - 10);
    load(BATCH_EVENTS);
    assert_int_equal(outgoing.count, EVENTS - 10);
    assert_int_equal(number_at(0), 11);
    assert_int_equal(ask("SELECT status FROM lanes WHERE source = ''"), 200);
    spool_close(&spool);
}

static void moves_rejected_events_aside(void **state)
{
    (void)state;
    open_spool();
    add(1, 4);
    flush_at(4);
    load(BATCH_EVENTS);
    answer.rejected_count = 2;
    answer.rejected[0] = (struct answer_rejection){0, "invalid_payload", "first"};
    answer.rejected[1] = (struct answer_rejection){3, "invalid_event_id", "last"};
    assert_true(settle(ANSWER_REJECT_LISTED));
    assert_int_equal(spool_waiting(&spool), 2);
    assert_int_equal(ask("SELECT rejected FROM totals"), 2);
    load(BATCH_EVENTS);
    assert_int_equal(outgoing.count, 2);
    assert_int_equal(number_at(0), 2);
    assert_int_equal(ask("SELECT count(*) FROM rejected WHERE line IS NULL AND"
                         " code = 'invalid_event_id' AND message = 'last'"),
                     1);
    spool_close(&spool);
}

/* How many batches had been accepted then is kept with it, and it comes alone from then on. */
static void marks_an_event_that_was_refused_alone(void **state)
{
    struct lane lane;
    (void)state;
    open_spool();
    add(1, 4);
    flush_at(4);
    lane = find_lane("", "");
    load(1);
    assert_true(settle(ANSWER_STORED));
    assert_int_equal(find_lane("", "").accepted, 1);
    load(3);
    assert_true(settle(ANSWER_HALVE)); /* not alone */
    load_lane(&lane, 3, 1);
    assert_int_equal(outgoing.refused, -1);
    lane = find_lane("", "");
    assert_true(spool_settle(&spool, &lane, &outgoing, &answer, ""));
    load_lane(&lane, 4, 1);
    answer.action = ANSWER_STORED;
    assert_true(spool_settle(&spool, &lane, &outgoing, &answer, ""));

    spool_close(&spool);
    open_spool();
    load(BATCH_EVENTS);
    assert_int_equal(outgoing.count, 1);
    assert_int_equal(number_at(0), 2);
    assert_int_equal(outgoing.refused, -1);
    lane = find_lane("", "");
    load_lane(&lane, 3, BATCH_EVENTS);
    assert_int_equal(outgoing.count, 1);
    assert_int_equal(number_at(0), 3);
    assert_int_equal(outgoing.refused, 1);
    assert_int_equal(lane.accepted, 2);
    /* The mark is that of the first time. */
    answer.action = ANSWER_HALVE;
    assert_true(spool_settle(&spool, &lane, &outgoing, &answer, ""));
    load_lane(&lane, 3, BATCH_EVENTS);
    assert_int_equal(outgoing.refused, 1);
    spool_close(&spool);
}

/* A batch may be under way while its events are dropped, and others are added. */
static void gives_no_serial_twice(void **state)
{
    (void)state;
    open_spool();
    add(1, 3);
    flush_at(3);
    load(BATCH_EVENTS);
    assert_true(sql_run(spool.database, "DELETE FROM events; UPDATE lanes SET waiting = 0"));
    add(4, 6);
    flush_at(6);
    assert_true(settle(ANSWER_STORED));
    assert_int_equal(ask("SELECT count(*) FROM events"), 3);
    assert_int_equal(spool_waiting(&spool), 3);
    spool_close(&spool);
}

static void forgets_the_oldest_rejected_lines_and_counts_them(void **state)
{
    static char text[8 * 1024];
    const struct spool_item item = {
        .error = ERROR_INVALID_PAYLOAD, .line = 7, .text = text, .length = sizeof(text)};
    (void)state;
    open_as(NAME, MIB, false);
    for (int i = 0; i < 100; i++) {
        assert_true(spool_add(&spool, &item));
        flush_at(0);
    }
    assert_int_equal(ask("SELECT rejected FROM totals"), 100);
    assert_int_equal(ask("SELECT count(*) FROM rejected") + ask("SELECT forgotten FROM totals"),
                     100);
    assert_true(ask("SELECT sum(length(text)) FROM rejected") <= MIB / 8);
    assert_true(ask("SELECT sum(length(text)) FROM rejected") >= MIB / 10);
    assert_int_equal(ask("SELECT max(serial) FROM rejected"), 100);
    assert_true(folder_logged("event=rejected_dropped"));
    assert_true(sql_run(spool.database, "UPDATE rejected SET text = 'longer or shorter'"));
    assert_true(sql_run(spool.database, "DELETE FROM rejected"));
    assert_int_equal(ask("SELECT kept_bytes FROM totals"), 0);
    spool_close(&spool);
}

/* Adds large events until a flush says something else, or so many are in. */
static size_t fill(size_t most, enum spool_verdict *verdict)
{
    static char text[32 * 1024];
    const struct spool_item item = {
        .has_timestamp = true, .time = 1, .text = text, .length = sizeof(text)};
    size_t count = 0;

    memset(text, 'x', sizeof(text));
    *verdict = SPOOL_TAKEN;
    while (count < most && *verdict == SPOOL_TAKEN && spool_add(&spool, &item)) {
        count++;
        *verdict = spool_flush(&spool, NULL, 0, false);
    }
    return count;
}

static void drops_and_counts_the_oldest_events_when_full(void **state)
{
    enum spool_verdict verdict;
    (void)state;
    open_as(NAME, MIB, false);
    assert_int_equal(fill(100, &verdict), 100);
    assert_true(ask("PRAGMA page_count") * STORE_PAGE_BYTES <= MIB);
    assert_true(ask("SELECT dropped FROM totals") > 0);
    assert_int_equal((long long)spool_waiting(&spool) + ask("SELECT dropped FROM totals"), 100);
    assert_true(spool_waiting(&spool) >= 20);
    assert_int_equal(ask("SELECT min(serial) FROM events"), ask("SELECT dropped FROM totals") + 1);
    assert_int_equal(ask("SELECT sum(waiting) FROM lanes"), spool_waiting(&spool));
    assert_true(folder_logged("event=spool_dropped"));
    spool_close(&spool);
}

static void counts_no_event_as_dropped_that_arrived_all_the_same(void **state)
{
    enum spool_verdict verdict;
    long long dropped;
    (void)state;
    open_as(NAME, MIB, false);
    assert_int_equal(fill(10, &verdict), 10);
    load(BATCH_EVENTS);
    assert_int_equal(fill(90, &verdict), 90);
    dropped = ask("SELECT dropped FROM totals");
    assert_true(settle(ANSWER_STORED));
    assert_int_equal(ask("SELECT sent FROM totals"), 10);
    assert_int_equal(ask("SELECT dropped FROM totals"), dropped - 10);
    assert_int_equal((long long)spool_waiting(&spool) + ask("SELECT dropped FROM totals"), 90);
    spool_close(&spool);
}

static void blocks_when_full_if_configured(void **state)
{
    enum spool_verdict verdict;
    size_t count;
    (void)state;
    open_as(NAME, MIB, true);
    count = fill(100, &verdict);
    assert_int_equal(verdict, SPOOL_FULL);
    assert_int_equal(ask("SELECT dropped FROM totals"), 0);
    assert_int_equal(spool_waiting(&spool), count - 1);
    assert_int_equal(spool_flush(&spool, NULL, 0, false), SPOOL_FULL);

    /* The last of them is kept, and is committed once there is room. */
    load(BATCH_EVENTS);
    assert_true(settle(ANSWER_STORED));
    assert_int_equal(spool_flush(&spool, NULL, 0, false), SPOOL_TAKEN);
    assert_int_equal(spool_waiting(&spool), 1);
    assert_true(fill(100, &verdict) > count / 2);
    assert_int_equal(spool_flush(&spool, NULL, 0, true), SPOOL_TAKEN);
    spool_close(&spool);
}

static void gives_the_space_back_after_a_backlog(void **state)
{
    enum spool_verdict verdict;
    (void)state;
    open_as(NAME, 8 * MIB, false);
    fill(200, &verdict);
    assert_true(ask("PRAGMA page_count") * STORE_PAGE_BYTES > 4 * MIB);
    while (spool_waiting(&spool) > 0) {
        load(BATCH_EVENTS);
        assert_true(settle(ANSWER_STORED));
    }
    assert_true(ask("PRAGMA page_count") * STORE_PAGE_BYTES < MIB);
    spool_close(&spool);
}

/* Leaves a database as a clean end does: one file. */
static size_t record_spool(void)
{
    folder_empty();
    open_spool();
    for (size_t i = 0; i < 20; i++)
        add_as(i * EVENTS + 1, (i + 1) * EVENTS, i % 2 == 1, true, 1);
    flush_at(20 * EVENTS);
    spool_close(&spool);
    return folder_read(DATABASE, recorded, sizeof(recorded));
}

/* Opens a damaged spool, and counts the events that are left; they must be there in order. */
static size_t count_left(void)
{
    struct lane lane = {0};
    size_t count = 0;

    open_spool();
    assert_int_equal(ask("SELECT sum(waiting) FROM lanes"), ask("SELECT count(*) FROM events"));
    while (spool_next_lane(&spool, lane.id, &lane) > 0) {
        int64_t last = 0;

        do {
            load_lane(&lane, last + 1, BATCH_EVENTS);
            for (size_t i = 0; i < outgoing.count; i++) {
                assert_true(outgoing.serials[i] > last);
                last = outgoing.serials[i];
            }
            count += outgoing.count;
        } while (outgoing.count > 0);
    }
    /* What comes now follows. */
    add(1, 1);
    flush_at(1);
    assert_int_equal(spool_waiting(&spool), count + 1);
    spool_close(&spool);
    return count;
}

static size_t count_left_of(const void *bytes, size_t length)
{
    folder_empty();
    folder_write(DATABASE, bytes, length);
    folder_forget_log();
    return count_left();
}

static void recovers_what_can_be_read_around_a_damaged_page(void **state)
{
    const size_t length = record_spool();
    (void)state;
    for (size_t page = 0; page < length / STORE_PAGE_BYTES; page++) {
        static unsigned char damaged[DATABASE_BYTES];
        size_t left;

        memcpy(damaged, recorded, length);
        memset(damaged + page * STORE_PAGE_BYTES, 0xa5, STORE_PAGE_BYTES);
        left = count_left_of(damaged, length);
        assert_true(folder_logged("event=spool_damaged"));
        assert_true(folder_logged("event=spool_recovered"));
        /* A page of events has some 30 of them; without their tree's root, none is found. */
        assert_true(page == 2 ? left == 0 : left > 17 * EVENTS);
        /* The first page is the same in each database. */
        assert_true(page != 0 || left == 20 * EVENTS);
    }
}

static void recovers_all_after_a_flipped_bit_in_the_first_page(void **state)
{
    const size_t length = record_spool();
    (void)state;
    for (size_t bit = 0; bit < (size_t)STORE_PAGE_BYTES * 8; bit += bit < 800 ? 3 : 53) {
        recorded[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(count_left_of(recorded, length), 20 * EVENTS);
        recorded[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void starts_anew_with_noise_or_a_file_cut_short(void **state)
{
    const size_t length = record_spool();
    (void)state;
    for (size_t cut = 1; cut < length; cut += 3001)
        assert_true(count_left_of(recorded, cut) <= 20 * EVENTS);
    for (size_t i = 0; i < length; i++)
        recorded[i] = (unsigned char)(i * 31 % 251);
    assert_int_equal(count_left_of(recorded, length), 0);
    assert_true(folder_logged("event=spool_damaged"));
}

/* Overwrites pages of the open database, until it is found and replaced. */
static void damage(size_t from, size_t to)
{
    static struct outgoing ignored;
    unsigned char noise[STORE_PAGE_BYTES];
    struct lane lane = LANE;
    FILE *file;
    char path[128];

    memset(noise, 0xa5, sizeof(noise));
    snprintf(path, sizeof(path), "%s/%s", folder_path(), DATABASE);
    file = fopen(path, "r+e");
    assert_non_null(file);
    for (size_t page = from; page < to; page++) {
        assert_int_equal(fseek(file, (long)(page * STORE_PAGE_BYTES), SEEK_SET), 0);
        assert_int_equal(fwrite(noise, sizeof(noise), 1, file), 1);
    }
    fclose(file);
    folder_forget_log();
    assert_int_equal(sqlite3_db_release_memory(spool.database), SQLITE_OK);
    for (int tries = 0; tries < 3 && !folder_logged("event=spool_damaged"); tries++)
        (void)!(spool_load(&spool, &lane, 0, BATCH_EVENTS, &ignored) &&
                spool_next_lane(&spool, 0, &lane) > 0);
    assert_true(folder_logged("event=spool_damaged"));
}

static void goes_on_if_it_is_damaged_while_it_is_open(void **state)
{
    (void)state;
    record_spool();
    open_spool();
    damage(9, 12);
    add(1, 1);
    flush_at(1);
    assert_true(spool_waiting(&spool) > 14 * EVENTS);
    spool_close(&spool);
}

static void keeps_its_name_if_the_lanes_are_damaged(void **state)
{
    struct lane lane;
    (void)state;
    record_spool();
    open_spool();
    damage(3, 5);
    lane = find_lane("", "");
    assert_string_equal(lane.name, NAME);
    assert_int_equal(lane.waiting, 20 * EVENTS);
    spool_close(&spool);
}

/* An earlier name's events may lie far before the others. */
static void recovers_events_behind_a_hole_in_the_serials(void **state)
{
    static const size_t FAR = 1000 * 1000 * 1000;
    char sql[128];
    size_t length;
    (void)state;
    record_spool();
    open_spool();
    snprintf(sql, sizeof(sql), "UPDATE events SET serial = serial + %zu WHERE serial > 240", FAR);
    assert_true(sql_run(spool.database, sql));
    spool_close(&spool);
    length = folder_read(DATABASE, recorded, sizeof(recorded));
    for (size_t page = 8; page < length / STORE_PAGE_BYTES; page++) {
        static unsigned char damaged[DATABASE_BYTES];

        memcpy(damaged, recorded, length);
        memset(damaged + page * STORE_PAGE_BYTES, 0xa5, STORE_PAGE_BYTES);
        assert_true(count_left_of(damaged, length) > 17 * EVENTS);
    }
}

/* As a kill between any two steps leaves them. */
static void finishes_what_a_killed_process_began_after_damage(void **state)
{
    static unsigned char noise[2 * STORE_PAGE_BYTES];
    const size_t length = record_spool();
    (void)state;
    memset(noise, 0xa5, sizeof(noise));
    folder_empty();
    folder_write(DATABASE, noise, sizeof(noise));
    folder_write("spool.db.new", recorded, length);
    assert_int_equal(count_left(), 20 * EVENTS);
    assert_true(folder_logged("event=spool_damaged"));

    folder_empty();
    folder_write("spool.db.new", recorded, length);
    assert_int_equal(count_left(), 20 * EVENTS);

    folder_empty();
    folder_forget_log();
    folder_write(DATABASE, recorded, length);
    folder_write("spool.db.part", noise, sizeof(noise));
    folder_write("spool.db.part-wal", noise, sizeof(noise));
    assert_int_equal(count_left(), 20 * EVENTS);
    assert_false(folder_logged("event=spool_damaged"));
}

/* The serials of a batch under way are those of the same events, or of none. */
static void settles_only_its_batch_after_damage(void **state)
{
    (void)state;
    for (int listed = 0; listed < 2; listed++) {
        size_t left;

        record_spool();
        open_spool();
        load(BATCH_EVENTS);
        assert_true(outgoing.count > EVENTS);
        damage(0, 40);
        add(1, EVENTS);
        flush_at(1);
        left = spool_waiting(&spool);
        assert_int_equal(left, EVENTS);
        answer.rejected_count = 1;
        answer.rejected[0] = (struct answer_rejection){0, "invalid_payload", "first"};
        assert_true(settle(listed == 0 ? ANSWER_STORED : ANSWER_REJECT_LISTED));
        assert_int_equal(spool_waiting(&spool), left);
        assert_int_equal(ask("SELECT count(*) FROM events"), left);

        /* Those that are loaded now are settled. */
        load(BATCH_EVENTS);
        assert_true(settle(ANSWER_STORED));
        assert_int_equal(spool_waiting(&spool), left - outgoing.count);
        spool_close(&spool);
    }
}

static void refuses_the_database_of_a_newer_version(void **state)
{
    (void)state;
    open_spool();
    assert_true(sql_run(spool.database, "PRAGMA user_version = 2;"
                                        "PRAGMA application_id = 0x73740002"));
    spool_close(&spool);
    assert_false(spool_open(&spool, folder_path(), NAME, MIB, false));
    assert_true(folder_logged("newer version"));
    assert_false(folder_logged("event=spool_damaged"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
        TEST(keeps_events_with_the_position_behind_them),
        TEST(fills_in_the_source_in_front),
        TEST(sends_events_of_an_earlier_name_under_theirs),
        TEST(dates_events_from_the_beginning_of_their_boot),
        TEST(removes_stored_events_and_counts_them),
        TEST(moves_rejected_events_aside),
        TEST(marks_an_event_that_was_refused_alone),
        TEST(gives_no_serial_twice),
        TEST(forgets_the_oldest_rejected_lines_and_counts_them),
        TEST(drops_and_counts_the_oldest_events_when_full),
        TEST(counts_no_event_as_dropped_that_arrived_all_the_same),
        TEST(blocks_when_full_if_configured),
        TEST(gives_the_space_back_after_a_backlog),
        TEST(recovers_what_can_be_read_around_a_damaged_page),
        TEST(recovers_all_after_a_flipped_bit_in_the_first_page),
        TEST(starts_anew_with_noise_or_a_file_cut_short),
        TEST(goes_on_if_it_is_damaged_while_it_is_open),
        TEST(keeps_its_name_if_the_lanes_are_damaged),
        TEST(recovers_events_behind_a_hole_in_the_serials),
        TEST(finishes_what_a_killed_process_began_after_damage),
        TEST(settles_only_its_batch_after_damage),
        TEST(refuses_the_database_of_a_newer_version),
    };

    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
