#include "import/progress.h"

#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static int old_stderr;
static int reader;
static struct progress progress;

/* Standard error is a pipe, or a terminal, until assert_shown. */
static void begin(bool is_terminal, bool is_quiet)
{
    int ends[2];

    if (is_terminal) {
        struct termios raw;

        ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
        assert_int_equal(grantpt(ends[0]), 0);
        assert_int_equal(unlockpt(ends[0]), 0);
        ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
        assert_int_equal(tcgetattr(ends[1], &raw), 0);
        cfmakeraw(&raw);
        assert_int_equal(tcsetattr(ends[1], TCSANOW, &raw), 0);
    } else {
        assert_int_equal(pipe(ends), 0);
    }
    reader = ends[0];
    old_stderr = dup(STDERR_FILENO);
    assert_true(old_stderr >= 0);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    progress_begin(&progress, is_quiet, 5000);
}

static void show(int64_t now_ms, int64_t done, int64_t total)
{
    progress_show(&progress, now_ms, done, total, "KiB");
}

static void assert_shown(const char *expected)
{
    char text[1000];
    size_t length = 0;

    /* Up to a NUL: a terminal hands over in pieces what was written to it. */
    assert_int_equal(write(STDERR_FILENO, "", 1), 1);
    do {
        ssize_t count = read(reader, text + length, sizeof(text) - length);

        assert_true(count > 0);
        length += (size_t)count;
    } while (text[length - 1] != '\0');
    assert_int_equal(dup2(old_stderr, STDERR_FILENO), STDERR_FILENO);
    close(old_stderr);
    close(reader);
    assert_string_equal(text, expected);
}

static void prints_a_line_every_ten_seconds(void **state)
{
    (void)state;
    begin(false, false);
    show(14999, 100, 400);
    show(15000, 100, 400);
    show(24999, 390, 400);
    show(25000, 399, 400);
    progress_wipe(&progress);
    assert_shown("steepctl: 100 of 400 KiB (25 %), 10 a second, 30 s left\n"
                 "steepctl: 399 of 400 KiB (99 %), 19 a second, 1 s left\n");
}

static void draws_a_line_each_second_after_two_and_wipes_it(void **state)
{
    (void)state;
    begin(true, false);
    show(6999, 10, 400);
    progress_wipe(&progress);
    show(7000, 10, 400);
    show(7999, 20, 400);
    show(8000, 30, 400);
    progress_wipe(&progress);
    progress_wipe(&progress);
    show(8999, 40, 400);
    show(9000, 40, 400);
    assert_shown("\r10 of 400 KiB (2 %), 5 a second, 78 s left\033[K"
                 "\r30 of 400 KiB (7 %), 10 a second, 37 s left\033[K"
                 "\r\033[K"
                 "\r40 of 400 KiB (10 %), 10 a second, 36 s left\033[K");
}

static void estimates_nothing_without_a_total_or_a_rate(void **state)
{
    (void)state;
    begin(false, false);
    show(15000, 0, 400);
    show(25000, 400, 400);
    show(35000, 500, 400);
    show(45000, 600, 0);
    assert_shown("steepctl: 0 KiB, 0 a second\n"
                 "steepctl: 400 KiB, 20 a second\n"
                 "steepctl: 500 KiB, 16 a second\n"
                 "steepctl: 600 KiB, 15 a second\n");
}

static void shows_nothing_if_it_is_quiet(void **state)
{
    (void)state;
    for (int is_terminal = 0; is_terminal <= 1; is_terminal++) {
        begin(is_terminal != 0, true);
        show(7000, 10, 400);
        show(60000, 100, 400);
        progress_wipe(&progress);
        assert_shown("");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_a_line_every_ten_seconds),
        cmocka_unit_test(draws_a_line_each_second_after_two_and_wipes_it),
        cmocka_unit_test(estimates_nothing_without_a_total_or_a_rate),
        cmocka_unit_test(shows_nothing_if_it_is_quiet),
    };

    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
