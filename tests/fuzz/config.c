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

static int log_file;      /* takes what is logged */
static int real_log = -1; /* standard error as it was */

int LLVMFuzzerInitialize(int *argc, char ***argv) // NOLINT(readability-non-const-parameter)
{
    (void)argc;
    (void)argv;
    log_file = memfd_create("log", MFD_CLOEXEC);
    real_log = dup(STDERR_FILENO);
    require(log_file >= 0 && real_log >= 0, "there are file descriptors");
    /* What the sanitizer has to say is not to end in the log. */
    __sanitizer_set_report_fd((void *)(intptr_t)real_log); // NOLINT(performance-no-int-to-ptr)
    return 0;
}

/* Whether a value can be taken, and what it is; an empty one leaves the default in *number. */
static bool is_acceptable(const struct variable *variable, unsigned long *number)
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

/* Runs config_read, and keeps the line that it logs. */
static bool read_logged(struct config *config, char line[static LINE_BYTES])
{
    bool is_read;
    ssize_t length;

    require(ftruncate(log_file, 0) == 0 && lseek(log_file, 0, SEEK_SET) == 0 &&
                dup2(log_file, STDERR_FILENO) >= 0,
            "the log can be kept");
    is_read = config_read(config, DEFAULT_WAIT_SECONDS);
    dup2(real_log, STDERR_FILENO);
    length = pread(log_file, line, LINE_BYTES - 1, 0);
    require(length >= 0, "the log can be read");
    line[length] = '\0';
    return is_read;
}

/* A line has the time, and then what names the variable and its limits: no room for the value. */
static void check_refusal(const struct variable *variable, const char *line)
{
    char expected[LINE_BYTES];
    const char *rest = strchr(line, ' ');

    snprintf(expected, sizeof(expected),
             " level=error event=configuration variable=%s"
             " detail=\"must be a whole number from %lu to %lu\"\n",
             variable->name, variable->least, variable->most);
    require(rest != NULL && strcmp(rest, expected) == 0, "a refusal is one line, and a sentence");
}

/* Puts the lines of an input into the environment, which borrows them. */
static void set_variables(char *text, char *settings[static VARIABLES])
{
    for (size_t i = 0; i < VARIABLES; i++) {
        const char *value = text != NULL ? strsep(&text, "\n") : "";
        size_t size = strlen(TABLE[i].name) + strlen(value) + 2;

        settings[i] = malloc(size);
        require(settings[i] != NULL, "there is memory");
        snprintf(settings[i], size, "%s=%s", TABLE[i].name, value);
        require(putenv(settings[i]) == 0, "the environment can be set");
    }
}

/* The variables are set. */
static void check(void)
{
    unsigned long numbers[VARIABLES] = {0, 20, DEFAULT_WAIT_SECONDS};
    const struct variable *refused = NULL;
    struct config config;
    char line[LINE_BYTES];
    bool is_read = read_logged(&config, line);

    for (size_t i = 0; i < VARIABLES && refused == NULL; i++) {
        if (!is_acceptable(&TABLE[i], &numbers[i]))
            refused = &TABLE[i];
    }
    require(is_read == (refused == NULL), "what is out of range or no number is refused");
    if (refused != NULL) {
        check_refusal(refused, line);
        return;
    }
    require(*line == '\0', "nothing is logged of what is taken");
    require(config.workers >= 1 && config.workers <= 256, "workers lie in range");
    require(numbers[0] == 0 || config.workers == (int)numbers[0], "workers are as many as said");
    require(config.deadline_ms == (int)numbers[1] * 1000, "the deadline is the one said");
    require(config.wait_ms == (int)numbers[2] * 1000, "the wait is the one said");
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
