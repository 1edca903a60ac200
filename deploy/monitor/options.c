#include "options.h"

#include "base/config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: steep-monitor [OPTIONS] [FILE]        send events, one JSON object per line,\n"
    "                                             from FILE or standard input\n"
    "       steep-monitor [OPTIONS] keygen [DIR]  make a key pair\n"
    "       steep-monitor [OPTIONS] status        show what is pending and was sent\n"
    "       steep-monitor [OPTIONS] rejected list|retry|discard\n"
    "                                             print, retry or delete rejected events\n"
    "       steep-monitor [OPTIONS] -t            check the configuration\n"
    "       steep-monitor -V | --version          print the version\n"
    "       steep-monitor -h | --help             print this help\n"
    "options:\n"
    "  --url URL         the server, https only\n"
    "  --source NAME     the monitor's name (default: the host's)\n"
    "  --key FILE        private key (default: key.priv in the state folder)\n"
    "  --ca FILE         certificate authorities to trust, in PEM (default: the system's)\n"
    "  --state DIR       state folder (default: ~/.local/state/steep-monitor)\n"
    "  --spool-size MIB  disk space for pending events (default: 256)\n"
    "  --block           pause the input when the spool is full, instead of dropping events\n"
    "  --rotate-wait SECONDS\n"
    "                    close a rotated file when it has been quiet for so long (default: 5)\n"
    "See steep-monitor(1) for the environment variables and more.\n";

enum {
    SPOOL_MIB = 256,
    MAX_SPOOL_MIB = 1024 * 1024,
    MAX_INTERVAL_SECONDS = 86400,
    QUIET_SECONDS = 5,
    MAX_QUIET_SECONDS = 3600,
};

enum { URL, SOURCE, KEY, CA, STATE, SPOOL_SIZE, BLOCK, ROTATE_WAIT, OPTIONS };

/* The environment variable of each option. */
static const char *const VARIABLES[OPTIONS] = {
    [URL] = "STEEP_URL",
    [SOURCE] = "STEEP_SOURCE",
    [KEY] = "STEEP_KEY",
    [CA] = "STEEP_CA",
    [STATE] = "STEEP_MONITOR_STATE",
    [SPOOL_SIZE] = "STEEP_SPOOL_MIB",
    [BLOCK] = "STEEP_BLOCK",
    [ROTATE_WAIT] = "STEEP_ROTATE_WAIT_SECS",
};

/* A variable's value; NULL if it is unset or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value == NULL || *value == '\0' ? NULL : value;
}

/* Parses a number; leaves the default if text is NULL. False, and logged, if it is invalid. */
static bool read_number(const char *name, const char *text, long min, long max, long *value)
{
    char why[80];
    long number;

    if (text == NULL)
        return true;
    errno = 0;
    number = strtol(text, NULL, 10);
    if (strspn(text, "0123456789") == strlen(text) && errno == 0 && number >= min &&
        number <= max) {
        *value = number;
        return true;
    }
    snprintf(why, sizeof(why), "must be a whole number from %ld to %ld", min, max);
    config_refuse(name, why);
    return false;
}

static bool read_source(struct options *options, const char *text)
{
    char host[COMPLETE_SOURCE_BYTES + 1] = "";
    size_t length;

    if (text == NULL) {
        gethostname(host, sizeof(host) - 1);
        text = host;
    }
    length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < ' ' || text[i] > '~')
            length = 0;
    }
    if (length == 0 || length > COMPLETE_SOURCE_BYTES || text[0] == ' ' ||
        text[length - 1] == ' ') {
        config_refuse(VARIABLES[SOURCE], "must be 1 to 255 printable ASCII characters, without a "
                                         "space at either end");
        return false;
    }
    snprintf(options->source, sizeof(options->source), "%s", text);
    return true;
}

/* Joins a path; false, and logged, if it is too long. */
static bool make_path(const char *name, char path[static OPTIONS_PATH_BYTES], const char *folder,
                      const char *file)
{
    int length = snprintf(path, OPTIONS_PATH_BYTES, "%s%s", folder, file);

    if (length < OPTIONS_PATH_BYTES)
        return true;
    config_refuse(name, "is too long");
    return false;
}

/* The state folder: as given, systemd's, or in the user's home. */
static bool read_state(struct options *options, const char *text)
{
    const char *name = VARIABLES[STATE];

    if (text == NULL)
        text = variable("STATE_DIRECTORY");
    if (text != NULL)
        return make_path(name, options->state, text, "");
    text = variable("XDG_STATE_HOME");
    if (text != NULL && *text == '/')
        return make_path(name, options->state, text, "/steep-monitor");
    text = variable("HOME");
    if (text != NULL)
        return make_path(name, options->state, text, "/.local/state/steep-monitor");
    config_refuse(name, "is required if STATE_DIRECTORY, XDG_STATE_HOME and HOME are unset");
    return false;
}

static bool read_url(struct options *options, const char *text)
{
    const char *problem = text == NULL ? NULL : post_make_url(text, options->url);

    if (problem != NULL)
        config_refuse(VARIABLES[URL], problem);
    return problem == NULL;
}

static bool read_block(struct options *options, const char *text)
{
    options->is_blocking = text != NULL && strcmp(text, "1") == 0;
    if (text == NULL || options->is_blocking || strcmp(text, "0") == 0)
        return true;
    config_refuse(VARIABLES[BLOCK], "must be 1 or 0");
    return false;
}

static bool read_values(struct options *options, const char *const values[static OPTIONS])
{
    long mib = SPOOL_MIB;
    long seconds = 60;
    long events = BATCH_EVENTS;
    long quiet = QUIET_SECONDS;

    if (!read_url(options, values[URL]) || !read_source(options, values[SOURCE]) ||
        !read_state(options, values[STATE]) || !read_block(options, values[BLOCK]) ||
        !read_number(VARIABLES[SPOOL_SIZE], values[SPOOL_SIZE], 1, MAX_SPOOL_MIB, &mib) ||
        !read_number(VARIABLES[ROTATE_WAIT], values[ROTATE_WAIT], 0, MAX_QUIET_SECONDS, &quiet) ||
        !read_number("STEEP_BATCH_INTERVAL_SECS", variable("STEEP_BATCH_INTERVAL_SECS"), 1,
                     MAX_INTERVAL_SECONDS, &seconds) ||
        !read_number("STEEP_MAX_BATCH_SIZE", variable("STEEP_MAX_BATCH_SIZE"), 1, BATCH_EVENTS,
                     &events))
        return false;
    if (!(values[KEY] != NULL
              ? make_path(VARIABLES[KEY], options->key, values[KEY], "")
              : make_path(VARIABLES[KEY], options->key, options->state, "/key.priv")))
        return false;
    options->ca_file = values[CA];
    options->spool_bytes = (uint64_t)mib * 1024 * 1024;
    options->interval_ms = seconds * 1000;
    options->batch_events = (size_t)events;
    options->quiet_ms = quiet * 1000;
    return true;
}

/* The arguments after the options. */
static enum options_command read_operands(struct options *options, char **operands, int count)
{
    if (count == 2 && strcmp(operands[0], "keygen") == 0) {
        options->operand = operands[1];
        return OPTIONS_KEYGEN;
    }
    if (count == 2 && strcmp(operands[0], "rejected") == 0 &&
        (strcmp(operands[1], "list") == 0 || strcmp(operands[1], "retry") == 0 ||
         strcmp(operands[1], "discard") == 0)) {
        options->operand = operands[1];
        return OPTIONS_REJECTED;
    }
    if (count > 1 || (count == 1 && strcmp(operands[0], "rejected") == 0))
        return OPTIONS_EXIT;
    if (count == 0 || strcmp(operands[0], "-") == 0)
        return OPTIONS_RUN;
    if (strcmp(operands[0], "keygen") == 0)
        return OPTIONS_KEYGEN;
    if (strcmp(operands[0], "status") == 0)
        return OPTIONS_STATUS;
    options->operand = operands[0];
    return OPTIONS_RUN;
}

enum options_command options_read(struct options *options, int argc, char **argv, int *status)
{
    static const struct option LONG[] = {
        {"url", required_argument, NULL, URL},
        {"source", required_argument, NULL, SOURCE},
        {"key", required_argument, NULL, KEY},
        {"ca", required_argument, NULL, CA},
        {"state", required_argument, NULL, STATE},
        {"spool-size", required_argument, NULL, SPOOL_SIZE},
        {"block", no_argument, NULL, BLOCK},
        {"rotate-wait", required_argument, NULL, ROTATE_WAIT},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *values[OPTIONS];
    enum options_command command;
    bool is_test = false;
    int option;

    *options = (struct options){0};
    *status = 2;
    for (size_t i = 0; i < OPTIONS; i++)
        values[i] = variable(VARIABLES[i]);
    while ((option = getopt_long(argc, argv, "+tVh", LONG, NULL)) != -1) {
        if (option >= 0 && option < OPTIONS) {
            values[option] = option == BLOCK ? "1" : optarg;
        } else if (option == 't') {
            is_test = true;
        } else {
            *status = option == '?' ? 2 : 0;
            if (option == 'V')
                printf("steep-monitor (steep) %s\n", STEEP_VERSION);
            else
                fputs(USAGE, option == 'h' ? stdout : stderr);
            return OPTIONS_EXIT;
        }
    }
    command = read_operands(options, argv + optind, argc - optind);
    if (command == OPTIONS_EXIT || (is_test && command != OPTIONS_RUN)) {
        fputs(USAGE, stderr);
        return OPTIONS_EXIT;
    }
    *status = 1;
    if (!read_values(options, values))
        return OPTIONS_EXIT;
    return is_test ? OPTIONS_TEST : command;
}
