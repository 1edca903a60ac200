/*
 * When everything is read and when only what changed, with a database that answers as a test
 * says and a clock that a test sets: nobody waits ten minutes for it.
 */
#include "auth/refresh.c" // NOLINT(bugprone-suspicious-include)
#include "unit.h"

#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROWS_MOST = 8 };

/* A row of a mark, of a source's key, or of a source that has none. */
struct row {
    const char *mark, *source, *key;
};

/* What is read next; rows without a source end a list. */
static struct row changes[ROWS_MOST], all[ROWS_MOST];
static enum database_verdict reading_all;

/* What was asked for. */
static int changes_read, all_read;
static char asked_since[MARK_BYTES + 1];

static const struct row *rows;
static int row_count;
static time_t now_s = 1000;

static struct refresh tested;

/* Replaces libc's, also in the code under test: the monotonic clock stands still. */
int clock_gettime(clockid_t clock, /* NOLINT(readability-inconsistent-declaration-parameter-name) */
                  struct timespec *now)
{
    if (clock != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, clock, now);
    *now = (struct timespec){.tv_sec = now_s};
    return 0;
}

static void answer_with(const struct row *list)
{
    rows = list;
    row_count = 0;
    while (row_count < ROWS_MOST &&
           (list[row_count].mark != NULL || list[row_count].source != NULL))
        row_count++;
}

struct database *database_new(const char *name, struct connection_limits *limits)
{
    (void)name;
    (void)limits;
    return NULL;
}

void database_free(struct database *db)
{
    (void)db;
}

void database_clear(struct database *db)
{
    (void)db;
    row_count = 0;
}

enum database_verdict database_call(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline)
{
    (void)db;
    (void)sql;
    (void)deadline;
    if (count != 1)
        return DATABASE_FAILED;
    snprintf(asked_since, sizeof(asked_since), "%.*s", (int)parameters->length,
             (const char *)parameters->value);
    changes_read++;
    answer_with(changes);
    return DATABASE_DONE;
}

enum database_verdict database_open(struct database *db, const char *sql,
                                    const struct database_parameter *parameters, int count,
                                    int64_t deadline, int idle_ms)
{
    (void)db;
    (void)sql;
    (void)deadline;
    (void)idle_ms;
    assert_int_equal(count, 1);
    assert_null(parameters->value);
    all_read++;
    answer_with(all);
    return reading_all;
}

enum database_verdict database_next(struct database *db, int64_t deadline)
{
    (void)db;
    (void)deadline;
    return DATABASE_FAILED;
}

const char *database_sqlstate(const struct database *db)
{
    (void)db;
    return "";
}

int database_rows(const struct database *db)
{
    (void)db;
    return row_count;
}

static const char *cell(int row, int column)
{
    return column == 0 ? rows[row].mark : column == 1 ? rows[row].source : rows[row].key;
}

bool database_is_null(const struct database *db, int row, int column)
{
    (void)db;
    return cell(row, column) == NULL;
}

const char *database_bytes(const struct database *db, int row, int column, size_t *length)
{
    const char *text = cell(row, column);

    (void)db;
    *length = text != NULL ? strlen(text) : 0;
    return text != NULL ? text : "";
}

int64_t database_integer(const struct database *db, int row, int column)
{
    (void)db;
    (void)row;
    (void)column;
    return 0;
}

/* As on the primary. */
int64_t database_age_us(const struct database *db); // NOLINT(readability-redundant-declaration)
int64_t database_age_us(const struct database *db)
{
    (void)db;
    return 0;
}

void database_listen(struct database *db, const char *channel)
{
    (void)db;
    (void)channel;
}

bool database_is_notified(const struct database *db)
{
    (void)db;
    return true;
}

bool database_wait(struct database *db, int stop_fd, int64_t until)
{
    (void)db;
    (void)stop_fd;
    (void)until;
    return false;
}

#define KEY "0123456789abcdef0123456789abcdef"

static int set_up(void **state)
{
    (void)state;
    memset(changes, 0, sizeof(changes));
    memset(all, 0, sizeof(all));
    reading_all = DATABASE_DONE;
    changes_read = all_read = 0;
    tested = (struct refresh){.plan = &REFRESH_KEYS, .keyring = keyring_new(), .stop_fd = -1};
    all[0].mark = "first";
    all[1] = (struct row){NULL, "a", KEY};
    return tested.keyring == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    keyring_free(tested.keyring);
    return 0;
}

static size_t count_keys(const char *source)
{
    unsigned char keys[KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES];
    bool is_complete;

    return keyring_find_keys(tested.keyring, source, strlen(source), keys, &is_complete);
}

static void read_again(void)
{
    assert_int_equal(read_credentials(&tested), DATABASE_DONE);
}

/* After one read of everything, a change is to be read. */
static void read_first(void)
{
    read_again();
    assert_int_equal(all_read, 1);
    assert_int_equal(changes_read, 0);
    changes[0].mark = "second";
    changes[1] = (struct row){NULL, "b", KEY};
}

static void reads_everything_first_and_then_what_changed_since(void **state)
{
    (void)state;
    read_first();
    assert_int_equal(count_keys("a"), 1);
    read_again();
    assert_string_equal(asked_since, "first");
    assert_int_equal(count_keys("a") + count_keys("b"), 2);
    changes[1] = (struct row){NULL, "a", NULL};
    read_again();
    assert_string_equal(asked_since, "second");
    assert_int_equal(count_keys("a"), 0);
    assert_int_equal(count_keys("b"), 1);
    assert_int_equal(all_read, 1);
}

static void reads_everything_again_every_ten_minutes(void **state)
{
    (void)state;
    read_first();
    for (int round = 1; round <= 3; round++) {
        now_s += 599;
        read_again();
        assert_int_equal(changes_read, round);
        assert_int_equal(count_keys("b"), 1);
        now_s += 1;
        read_again();
        assert_int_equal(changes_read, round);
        assert_int_equal(all_read, 1 + round);
        /* What was not recorded as a change takes effect. */
        assert_int_equal(count_keys("b"), 0);
    }
}

static void reads_everything_when_the_database_cannot_tell_what_changed(void **state)
{
    (void)state;
    read_first();
    changes[0] = changes[1] = (struct row){0};
    all[0].mark = "third";
    all[1].source = "c";
    read_again();
    assert_int_equal(all_read, 2);
    assert_int_equal(count_keys("a"), 0);
    assert_int_equal(count_keys("c"), 1);
    changes[0].mark = "fourth";
    read_again();
    assert_string_equal(asked_since, "third");
    assert_int_equal(all_read, 2);
}

static void reads_changes_while_everything_cannot_be_read(void **state)
{
    (void)state;
    read_first();
    now_s += 600;
    reading_all = DATABASE_AWAY;
    assert_int_equal(read_credentials(&tested), DATABASE_AWAY);
    assert_int_equal(all_read, 2);
    read_again();
    assert_string_equal(asked_since, "first");
    assert_int_equal(count_keys("a") + count_keys("b"), 2);
    now_s += 600;
    reading_all = DATABASE_DONE;
    read_again();
    assert_int_equal(all_read, 3);
    assert_int_equal(count_keys("b"), 0);
}

static void asks_again_for_changes_of_which_one_was_invalid(void **state)
{
    (void)state;
    read_first();
    changes[2] = (struct row){NULL, "c", "too short"};
    assert_int_equal(read_credentials(&tested), DATABASE_FAILED);
    assert_int_equal(count_keys("a"), 1);
    assert_int_equal(count_keys("b"), 0);
    changes[2] = (struct row){0};
    read_again();
    assert_string_equal(asked_since, "first");
    assert_int_equal(count_keys("a") + count_keys("b"), 2);
    assert_int_equal(all_read, 1);
}

static void reads_everything_each_time_while_there_is_no_mark(void **state)
{
    (void)state;
    all[0] = (struct row){"", NULL, NULL};
    read_again();
    read_again();
    assert_int_equal(changes_read, 0);
    assert_int_equal(all_read, 2);
    assert_int_equal(count_keys("a"), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(reads_everything_first_and_then_what_changed_since),
        TEST(reads_everything_again_every_ten_minutes),
        TEST(reads_everything_when_the_database_cannot_tell_what_changed),
        TEST(reads_changes_while_everything_cannot_be_read),
        TEST(asks_again_for_changes_of_which_one_was_invalid),
        TEST(reads_everything_each_time_while_there_is_no_mark),
    };

    return cmocka_run_group_tests_name("refresh", tests, NULL, NULL);
}
