/*
 * The log: one line per event on standard error, as key=value.
 *
 * Values are escaped, so that nothing a client sends can forge a line or a field.
 * Never pass these functions a key, token, signature, body or payload.
 */
#ifndef STEEP_LOG_H
#define STEEP_LOG_H

#include <stddef.h>

enum { LOG_LINE_BYTES = 2048 };

enum log_level { LOG_INFO, LOG_WARNING, LOG_ERROR };

/* A line being built, on the caller's stack. */
struct log_line {
    enum log_level level;
    size_t length;
    char text[LOG_LINE_BYTES];
};

/*
 * If standard error is the journal (JOURNAL_STREAM, systemd.exec(5)), each line begins
 * with its priority, as in sd-daemon(3). Call it once, before there are threads; without
 * it there are no priorities.
 */
void log_open(void);

/* Begins a line with the time (UTC), the level and the event's name. */
void log_begin(struct log_line *line, enum log_level level, const char *event);

/* Adds key=value. A field that no longer fits is left out. */
void log_bytes(struct log_line *line, const char *key, const char *value, size_t length);
void log_string(struct log_line *line, const char *key, const char *value);
void log_number(struct log_line *line, const char *key, long long value);

/* Writes the line with one writev(2). */
void log_end(struct log_line *line);

/* A whole line with one value, "detail". */
void log_event(enum log_level level, const char *event, const char *detail);

#endif
