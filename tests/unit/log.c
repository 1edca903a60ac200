#include "base/log.h"
#include "unit.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char text[LOG_LINE_BYTES * 2];

/* Runs log_end with standard error in a pipe, which is or isn't the journal, and returns what came
 * out. */
static const char *written_to(struct log_line *line, bool is_journal)
{
    int ends[2];
    int saved = dup(STDERR_FILENO);
    struct stat pipe_itself;
    char stream[48];
    ssize_t length;

    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    assert_int_equal(fstat(ends[1], &pipe_itself), 0);
    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)pipe_itself.st_dev,
             (uintmax_t)pipe_itself.st_ino + !is_journal);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open();
    log_end(line);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    length = read(ends[0], text, sizeof(text) - 1);
    close(ends[0]);
    assert_true(length > 0);
    text[length] = '\0';
    return text;
}

/* The same where standard error is not what JOURNAL_STREAM names, as after 2>file. */
static const char *written(struct log_line *line)
{
    return written_to(line, false);
}

static void assert_ends_with(const char *line, const char *end)
{
    size_t length = strlen(line);

    assert_true(length >= strlen(end));
    assert_string_equal(line + length - strlen(end), end);
}

static void writes_one_line_of_keys_and_values(void **state)
{
    struct log_line line;
    (void)state;
    log_begin(&line, LOG_WARNING, "ingest");
    log_number(&line, "status", -7);
    log_string(&line, "source", "mac.book-1");
    written(&line);
    assert_memory_equal(text, "time=20", 7);
    assert_int_equal(strcspn(text, "TZ"), strlen("time=2026-02-03"));
    assert_ends_with(text, " level=warning event=ingest status=-7 source=mac.book-1\n");
}

static void escapes_what_could_forge_a_field(void **state)
{
    struct log_line line;
    (void)state;
    log_begin(&line, LOG_INFO, "x");
    log_bytes(&line, "a", "x\ny=\"1\" \\\x7f\xff\0z", 13);
    log_string(&line, "b", "");
    log_string(&line, "c", "k=v");
    assert_ends_with(written(&line),
                     " a=\"x\\x0ay=\\\"1\\\" \\\\\\x7f\\xff\\x00z\" b=\"\" c=\"k=v\"\n");
}

static void cuts_a_long_value(void **state)
{
    struct log_line line;
    char value[2000];
    char expected[400] = " a=";
    (void)state;
    memset(value, 'v', sizeof(value));
    log_begin(&line, LOG_INFO, "x");
    log_bytes(&line, "a", value, sizeof(value));
    memset(expected + 3, 'v', 300);
    memcpy(expected + 303, "\n", 2);
    assert_ends_with(written(&line), expected);
}

static void leaves_out_what_no_longer_fits(void **state)
{
    struct log_line line;
    char value[300];
    (void)state;
    memset(value, '\n', sizeof(value));
    log_begin(&line, LOG_INFO, "x");
    for (int i = 0; i < 5; i++)
        log_bytes(&line, "a", value, sizeof(value));
    log_number(&line, "last", 1);
    written(&line);
    assert_true(strlen(text) <= LOG_LINE_BYTES);
    assert_ends_with(text, " last=1\n");
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void writes_the_priority_for_the_journal(void **state)
{
    static const char *const EXPECTED[] = {
        [LOG_INFO] = "<6>time=20",
        [LOG_WARNING] = "<4>time=20",
        [LOG_ERROR] = "<3>time=20",
    };
    (void)state;
    for (enum log_level level = LOG_INFO; level <= LOG_ERROR; level++) {
        struct log_line line;

        log_begin(&line, level, "x");
        written_to(&line, true);
        assert_memory_equal(text, EXPECTED[level], strlen(EXPECTED[level]));
        assert_ends_with(text, " event=x\n");
    }
}

static void writes_no_priority_elsewhere(void **state)
{
    struct log_line line;
    (void)state;
    log_begin(&line, LOG_INFO, "x");
    assert_memory_equal(written(&line), "time=20", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_one_line_of_keys_and_values),
        cmocka_unit_test(escapes_what_could_forge_a_field),
        cmocka_unit_test(cuts_a_long_value),
        cmocka_unit_test(leaves_out_what_no_longer_fits),
        cmocka_unit_test(writes_the_priority_for_the_journal),
        cmocka_unit_test(writes_no_priority_elsewhere),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
