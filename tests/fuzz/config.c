/* The STEEP_* variables: an input's first three lines are their values, in the order below. */
#include "base/config.h"
#include "fuzz.h"

#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <unistd.h>

enum { VARIABLES = 3, DEFAULT_WAIT_SECONDS = 8, LINE_BYTES = 400 };

static const struct variable {
    const char *name;
    unsigned long least;
    unsigned long most;
} TABLE[VARIABLES] = {
    {"STEEP_WORKERS", 1, 256},
    {"STEEP_DEADLINE", 2, 600},
    {"STEEP_DATABASE_WAIT", 0, 60},
};

static int log_file;      /* captures the log */
static int real_log = -1; /* the original standard error */

int LLVMFuzzerInitialize(int *argc, char ***argv) // NOLINT(readability-non-const-parameter)
{
    (void)argc;
    (void)argv;
    log_file = memfd_create("log", MFD_CLOEXEC);
    real_log = dup(STDERR_FILENO);
    require(log_file >= 0 && real_log >= 0, "file descriptors can be opened");
    /* Keep the sanitizer's reports out of the captured log. */
    __sanitizer_set_report_fd((void *)(intptr_t)real_log); // NOLINT(performance-no-int-to-ptr)
    return 0;
}

/* Whether a value is valid; sets *number, unless the value is empty. */
static bool is_valid(const struct variable *variable, unsigned long *number)
{
    const char *value = getenv(variable->name);
    const char *digits;

    if (value == NULL || *value == '\0')
        return true;
    digits = value + strspn(value, "0");
    if (value[strspn(value, "0123456789")] != '\0' || strlen(digits) > 3)
        return false;
    *number = 0;
    for (; *digits != '\0'; digits++)
        *number = *number * 10 + (unsigned long)(*digits - '0');
    return *number >= variable->least && *number <= variable->most;
}

/* Runs config_read, and captures the line that it logs. */
static bool read_logged(struct config *config, char line[static LINE_BYTES])
{
    bool is_read;
    ssize_t length;

    require(ftruncate(log_file, 0) == 0 && lseek(log_file, 0, SEEK_SET) == 0 &&
                dup2(log_file, STDERR_FILENO) >= 0,
            "the log can be captured");
    is_read = config_read(config, DEFAULT_WAIT_SECONDS);
    dup2(real_log, STDERR_FILENO);
    length = pread(log_file, line, LINE_BYTES - 1, 0);
    require(length >= 0, "the log can be read");
    line[length] = '\0';
    return is_read;
}

/* The line contains the time, the variable and its limits, but not the value. */
static void check_refusal(const struct variable *variable, const char *line)
{
    char expected[LINE_BYTES];
    const char *rest = strchr(line, ' ');

    snprintf(expected, sizeof(expected),
             " level=error event=configuration variable=%s"
             " detail=\"must be a whole number from %lu to %lu\"\n",
             variable->name, variable->least, variable->most);
    require(rest != NULL && strcmp(rest, expected) == 0, "an error is one line with a sentence");
}

/* Sets the variables to the lines of an input. The environment keeps pointers to settings. */
static void set_variables(char *text, char *settings[static VARIABLES])
{
    for (size_t i = 0; i < VARIABLES; i++) {
        const char *value = text != NULL ? strsep(&text, "\n") : "";
        size_t size = strlen(TABLE[i].name) + strlen(value) + 2;

        settings[i] = malloc(size);
        require(settings[i] != NULL, "memory can be allocated");
        snprintf(settings[i], size, "%s=%s", TABLE[i].name, value);
        require(putenv(settings[i]) == 0, "the environment can be set");
    }
}

/* Compares the result of config_read with the variables. */
static void check(void)
{
    unsigned long numbers[VARIABLES] = {0, 20, DEFAULT_WAIT_SECONDS};
    const struct variable *refused = NULL;
    struct config config;
    char line[LINE_BYTES];
    bool is_read = read_logged(&config, line);

    for (size_t i = 0; i < VARIABLES && refused == NULL; i++) {
        if (!is_valid(&TABLE[i], &numbers[i]))
            refused = &TABLE[i];
    }
    require(is_read == (refused == NULL),
            "a value is refused if it is not a number or out of range");
    if (refused != NULL) {
        check_refusal(refused, line);
        return;
    }
    require(*line == '\0', "valid values are not logged");
    require(config.workers >= 1 && config.workers <= 256, "the number of workers is in range");
    require(numbers[0] == 0 || config.workers == (int)numbers[0],
            "the number of workers is the variable's");
    require(config.deadline_ms == (int)numbers[1] * 1000, "the deadline is the variable's");
    require(config.wait_ms == (int)numbers[2] * 1000, "the wait is the variable's");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = copy_text(data, size);
    char *settings[VARIABLES];

    set_variables(text, settings);
    check();
    for (size_t i = 0; i < VARIABLES; i++) {
        unsetenv(TABLE[i].name);
        free(settings[i]);
    }
    free(text);
    return 0;
}
