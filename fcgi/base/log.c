#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A client's name may be long; the line should stay readable. */
enum { VALUE_BYTES = 300 };

static const char *const LEVELS[] = {
    [LOG_INFO] = "info",
    [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error",
};

/* As in <syslog.h>, in digits. */
static const char PRIORITIES[] = {
    [LOG_INFO] = '6',
    [LOG_WARNING] = '4',
    [LOG_ERROR] = '3',
};

static bool is_journal;

void log_open(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat target;
    char ours[48];

    if (stream == NULL || fstat(STDERR_FILENO, &target) != 0)
        return;
    snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)target.st_dev, (uintmax_t)target.st_ino);
    is_journal = strcmp(stream, ours) == 0;
}

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("._:/+-", c) != NULL);
}

/* Writes a value, quoted if need be; returns its length, at most 4 * length + 2 bytes.
 */
static size_t quote(char *out, const char *value, size_t length)
{
    size_t n = 0;
    size_t plain = 0;

    while (plain < length && is_plain(value[plain]))
        plain++;
    if (plain == length && length > 0) {
        memcpy(out, value, length);
        return length;
    }
    out[n++] = '"';
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];

        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c < 0x20 || c > 0x7e) {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = "0123456789abcdef"[c >> 4];
            out[n++] = "0123456789abcdef"[c & 15];
        } else {
            out[n++] = (char)c;
        }
    }
    out[n++] = '"';
    return n;
}

/* Adds " key=" and a value; the last byte of the line stays free for the newline. */
static void add(struct log_line *line, const char *key, const char *value, size_t length)
{
    size_t key_length = strlen(key);

    if (key_length + length + 2 > sizeof(line->text) - 1 - line->length)
        return;
    if (line->length > 0)
        line->text[line->length++] = ' ';
    memcpy(line->text + line->length, key, key_length);
    line->length += key_length;
    line->text[line->length++] = '=';
    memcpy(line->text + line->length, value, length);
    line->length += length;
}

void log_begin(struct log_line *line, enum log_level level, const char *event)
{
    struct timespec now;
    struct tm tm;
    char second[32];
    char stamp[48];

    line->level = level;
    line->length = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(second, sizeof(second), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp, sizeof(stamp), "%s.%03ldZ", second, now.tv_nsec / 1000000);
    log_string(line, "time", stamp);
    log_string(line, "level", LEVELS[level]);
    log_string(line, "event", event);
}

void log_bytes(struct log_line *line, const char *key, const char *value, size_t length)
{
    char quoted[VALUE_BYTES * 4 + 2];

    if (length > VALUE_BYTES)
        length = VALUE_BYTES;
    add(line, key, quoted, quote(quoted, value, length));
}

void log_string(struct log_line *line, const char *key, const char *value)
{
    log_bytes(line, key, value, strlen(value));
}

void log_number(struct log_line *line, const char *key, long long value)
{
    char digits[24];
    int length = snprintf(digits, sizeof(digits), "%lld", value);

    add(line, key, digits, (size_t)length);
}

void log_end(struct log_line *line)
{
    char priority[] = {'<', PRIORITIES[line->level], '>'};
    struct iovec parts[2] = {{priority, is_journal ? sizeof(priority) : 0}};
    ssize_t ignored;

    line->text[line->length++] = '\n';
    parts[1] = (struct iovec){line->text, line->length};
    /* If the log itself can't be written, there is nowhere to report it. */
    ignored = writev(STDERR_FILENO, parts, 2);
    (void)ignored;
}

void log_event(enum log_level level, const char *event, const char *detail)
{
    struct log_line line;

    log_begin(&line, level, event);
    log_string(&line, "detail", detail);
    log_end(&line);
}
