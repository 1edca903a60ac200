#include "monitor/input.h"
#include "base/clock.h"
#include "folder.h"
#include "monitor/follow.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct input *input; /* the current file */
static struct input *left;  /* the one before it, while it is read */
static struct position reached;
static char path[128];
static char lines[64 * 1024]; /* what was read, with | after each line */

static time_t set_back; /* by how many seconds the clock is set back */

/* Replaces libc's, also in the code under test. */
int clock_gettime(clockid_t clock, /* NOLINT(readability-inconsistent-declaration-parameter-name) */
                  struct timespec *now)
{
    const long status = syscall(SYS_clock_gettime, clock, now);

    if (clock == CLOCK_REALTIME)
        now->tv_sec -= set_back;
    return (int)status;
}

static int make(void **state)
{
    set_back = 0;
    input = malloc(sizeof(*input));
    left = NULL;
    reached = (struct position){0};
    lines[0] = '\0';
    if (input == NULL || folder_make(state) != 0)
        return -1;
    snprintf(path, sizeof(path), "%s/events", folder_path());
    return 0;
}

static int unmake(void **state)
{
    free(input);
    if (left != NULL)
        input_close(left);
    free(left);
    return folder_remove(state);
}

static void append(const char *name, const char *text)
{
    int file = openat(folder_file(), name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
}

static void open_input(void)
{
    assert_true(input_open(input, path, &reached));
    input->may_leave = true;
}

/* Takes all complete lines, and keeps the position after the last of the current file. */
static void take_lines(struct input *from)
{
    struct input_line line;

    while (input_line(from, &line)) {
        size_t length = strlen(lines);

        snprintf(lines + length, sizeof(lines) - length, "%.*s|", (int)line.length, line.text);
        if (from == input)
            reached = line.position;
        input_take(from, &line);
    }
}

/* Opens the file that came after the current one, which is read further on. */
static void follow_rotation(void)
{
    struct input *next = malloc(sizeof(*next));

    assert_non_null(next);
    assert_true(input_open_next(next, input));
    if (left != NULL)
        input_close(left);
    free(left);
    left = input;
    left->quiet_ms = INT32_MAX;
    input = next;
    input->may_leave = true;
}

/* Reads until there is nothing more to read, the current file last. */
static void read_all(void)
{
    enum input_step step;

    if (left != NULL) {
        while (input_read(left) == INPUT_DATA)
            take_lines(left);
    }
    do {
        step = input_read(input);
        take_lines(input);
        if (step == INPUT_ROTATED)
            follow_rotation();
    } while (step == INPUT_DATA || step == INPUT_ROTATED);
}

static void assert_read(const char *expected)
{
    read_all();
    assert_string_equal(lines, expected);
    lines[0] = '\0';
}

/* Continues as another process would. */
static void restart(void)
{
    input_close(input);
    open_input();
}

static void reads_lines_as_they_are_written(void **state)
{
    (void)state;
    append("events", "one\r\n\ntwo\nthr");
    open_input();
    assert_read("one||two|");
    append("events", "ee\n");
    assert_read("three|");
    assert_read("");
    assert_int_equal(reached.line, 4);
    assert_int_equal(reached.offset, 16);
    input_close(input);
}

static void continues_where_it_stopped(void **state)
{
    (void)state;
    append("events", "one\ntwo\nthr");
    open_input();
    assert_read("one|two|");
    restart();
    append("events", "ee\nfour\n");
    assert_read("three|four|");
    restart();
    assert_read("");
    input_close(input);
}

static void waits_for_a_file_that_is_missing(void **state)
{
    (void)state;
    open_input();
    assert_read("");
    assert_true(folder_logged("event=input_missing"));
    append("events", "one\n");
    assert_read("one|");
    input_close(input);
}

static void rename_to(const char *name)
{
    assert_int_equal(renameat(folder_file(), "events", folder_file(), name), 0);
}

static void reads_a_replaced_file_beside_the_new_one(void **state)
{
    (void)state;
    append("events", "one\n");
    open_input();
    assert_read("one|");
    rename_to("events.1");
    append("events", "");
    append("events.1", "two\n");
    assert_read("two|");
    assert_null(left);
    append("events.1", "three\nfo");
    append("events", "five\n");
    assert_read("three|five|");
    assert_int_equal(reached.line, 1);
    append("events", "six\n");
    append("events.1", "ur\n");
    assert_read("four|six|");
    input_close(input);
}

static void reads_a_replaced_file_until_it_is_quiet(void **state)
{
    (void)state;
    append("events", "one\ntw");
    open_input();
    assert_read("one|");
    rename_to("events.1");
    append("events", "three\n");
    assert_read("three|");
    left->quiet_ms = 60;
    for (int i = 0; i < 3; i++) {
        usleep(40000);
        append("events.1", "x");
        assert_int_equal(input_read(left), INPUT_DATA);
        assert_int_equal(input_read(left), INPUT_NOTHING);
    }
    usleep(70000);
    assert_int_equal(input_read(left), INPUT_DATA); /* its last line is as long as it is */
    take_lines(left);
    assert_string_equal(lines, "twxxx|");
    assert_int_equal(input_read(left), INPUT_END);
    input_close(input);
}

static void leaves_no_file_without_room_for_its_successor(void **state)
{
    (void)state;
    append("events", "one\n");
    open_input();
    assert_read("one|");
    input->may_leave = false;
    rename_to("events.1");
    append("events", "two\n");
    assert_read("");
    input->may_leave = true;
    assert_read("two|");
    input_close(input);
}

static void continues_in_a_file_that_was_left(void **state)
{
    struct position of_left;
    (void)state;
    append("events", "one\n");
    open_input();
    assert_read("one|");
    rename_to("events.1");
    append("events", "two\n");
    assert_read("two|");
    of_left = left->position;
    input_close(left);
    append("events.1", "three\n");
    assert_true(input_open_left(left, path, &of_left));
    left->quiet_ms = INT32_MAX;
    assert_read("three|");
    assert_int_equal(unlinkat(folder_file(), "events.1", 0), 0);
    input_close(left);
    assert_false(input_open_left(left, path, &of_left));
    assert_true(folder_logged("event=input_replaced"));
    input_close(input);
}

static void finds_a_file_that_was_renamed_while_stopped(void **state)
{
    (void)state;
    append("events", "one\ntwo\n");
    open_input();
    assert_read("one|two|");
    input_close(input);
    append("events", "three\n");
    rename_to("events.2");
    append("events", "four\n");
    rename_to("events.1");
    append("events.1.gz", "not this\n");
    append("events", "five\n");
    open_input();
    assert_read("three|four|five|");
    input_close(input);
}

/* Like logrotate's copytruncate. */
static void copy_and_truncate(const char *copy)
{
    char text[1024];
    size_t length = folder_read("events", text, sizeof(text));

    folder_write(copy, text, length);
    folder_write("events", "", 0);
}

static void reads_the_rest_from_the_copy_of_a_truncated_file(void **state)
{
    (void)state;
    append("events", "one\ntwo\n");
    open_input();
    assert_read("one|two|");
    append("events", "three\n");
    copy_and_truncate("events.1");
    append("events", "four\n");
    assert_read("three|four|");
    input_close(input);
    append("events", "five\n");
    copy_and_truncate("events.2");
    append("events", "six\n");
    open_input();
    assert_read("five|six|");
    input_close(input);
}

static void notices_a_truncated_file_that_has_grown_beyond_its_length(void **state)
{
    (void)state;
    append("events", "one\n");
    open_input();
    assert_read("one|");
    folder_write("events", "another one\n", 12);
    assert_read("another one|");
    assert_true(folder_logged("event=input_truncated"));
    input_close(input);
}

static void does_not_mistake_an_older_file_for_a_copy(void **state)
{
    (void)state;
    append("events.1", "same\nsame\nsame\n");
    usleep(30000); /* file times have a resolution of up to 10 ms */
    append("events", "same\nsame\n");
    open_input();
    assert_read("same|same|");
    folder_write("events", "new\n", 4);
    assert_read("new|");
    input_close(input);
}

static void reads_a_copy_only_once(void **state)
{
    (void)state;
    append("events", "one\n");
    open_input();
    assert_read("one|");
    usleep(30000);
    copy_and_truncate("events.1");
    usleep(30000);
    append("events", "two\n");
    assert_read("two|");
    /* Renamed while stopped; the copy is newer than the file. */
    input_close(input);
    append("events", "three\n");
    rename_to("events.2");
    append("events", "four\n");
    open_input();
    assert_read("three|four|");
    input_close(input);
}

static void recognizes_a_new_file_with_the_same_inode(void **state)
{
    struct stat status;
    (void)state;
    append("events", "same\nsame\n");
    open_input();
    assert_read("same|same|");
    input_close(input);
    assert_int_equal(unlinkat(folder_file(), "events", 0), 0);
    usleep(30000);
    append("events", "same\nsame\nsame\n");
    assert_int_equal(stat(path, &status), 0);
    reached.inode = status.st_ino;
    open_input();
    assert_read("same|same|same|");
    input_close(input);
}

/* The file then seems to have been created in the future. */
static void recognizes_its_file_after_the_clock_was_set_back(void **state)
{
    (void)state;
    append("events", "one\n");
    open_input();
    assert_read("one|");
    set_back = 3600;
    append("events", "two\n");
    assert_read("two|");
    restart();
    append("events", "three\n");
    assert_read("three|");
    assert_false(folder_logged("event=input_"));
    input_close(input);
}

static void truncates_lines_that_are_too_long(void **state)
{
    const size_t sizes[] = {INPUT_LINE_BYTES, INPUT_LINE_BYTES + 1, INPUT_BUFFER_BYTES,
                            3 * INPUT_BUFFER_BYTES + 7};
    char *text = malloc(4 * INPUT_BUFFER_BYTES);
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct input_line line;

        memset(text, 'x', sizes[i]);
        memcpy(text + sizes[i], "\nnext\n", 6);
        folder_write("events", text, sizes[i] + 6);
        reached = (struct position){0};
        open_input();
        while (!input_line(input, &line))
            assert_int_equal(input_read(input), INPUT_DATA);
        assert_true(input_line(input, &line)); /* the same line again */
        assert_int_equal(line.length, INPUT_LINE_BYTES);
        assert_int_equal(line.is_too_long, sizes[i] > INPUT_LINE_BYTES);
        assert_int_equal(line.position.offset, sizes[i] + 1);
        reached = line.position;
        input_take(input, &line);
        assert_read("next|");
        assert_int_equal(reached.offset, sizes[i] + 6);
        restart();
        assert_read("");
        assert_false(folder_logged("event=input_"));
        input_close(input);
    }
    free(text);
}

static void reads_a_fifo_whose_writers_come_and_go(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    open_input();
    assert_int_equal(input->kind, INPUT_FIFO);
    for (int i = 0; i < 3; i++) {
        int writer = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(write(writer, "one\ntwo", 7), 7);
        assert_read("one|");
        close(writer);
        assert_int_equal(input_read(input), INPUT_DATA);
        take_lines(input);
        assert_string_equal(lines, "two|");
        lines[0] = '\0';
    }
    input_close(input);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_lines_as_they_are_written, make, unmake),
        cmocka_unit_test_setup_teardown(continues_where_it_stopped, make, unmake),
        cmocka_unit_test_setup_teardown(waits_for_a_file_that_is_missing, make, unmake),
        cmocka_unit_test_setup_teardown(reads_a_replaced_file_beside_the_new_one, make, unmake),
        cmocka_unit_test_setup_teardown(reads_a_replaced_file_until_it_is_quiet, make, unmake),
        cmocka_unit_test_setup_teardown(leaves_no_file_without_room_for_its_successor, make,
                                        unmake),
        cmocka_unit_test_setup_teardown(continues_in_a_file_that_was_left, make, unmake),
        cmocka_unit_test_setup_teardown(finds_a_file_that_was_renamed_while_stopped, make, unmake),
        cmocka_unit_test_setup_teardown(reads_the_rest_from_the_copy_of_a_truncated_file, make,
                                        unmake),
        cmocka_unit_test_setup_teardown(notices_a_truncated_file_that_has_grown_beyond_its_length,
                                        make, unmake),
        cmocka_unit_test_setup_teardown(does_not_mistake_an_older_file_for_a_copy, make, unmake),
        cmocka_unit_test_setup_teardown(reads_a_copy_only_once, make, unmake),
        cmocka_unit_test_setup_teardown(recognizes_a_new_file_with_the_same_inode, make, unmake),
        cmocka_unit_test_setup_teardown(recognizes_its_file_after_the_clock_was_set_back, make,
                                        unmake),
        cmocka_unit_test_setup_teardown(truncates_lines_that_are_too_long, make, unmake),
        cmocka_unit_test_setup_teardown(reads_a_fifo_whose_writers_come_and_go, make, unmake),
    };

    return cmocka_run_group_tests_name("input", tests, NULL, NULL);
}
