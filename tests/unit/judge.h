/* A body as ingest.fcgi judges it, for the tests of what takes part in that. */
#ifndef STEEP_UNIT_JUDGE_H
#define STEEP_UNIT_JUDGE_H

#include "event/batch.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An event that breaks no rule, but for the source's name: macbook. */
#define EVENT(id, payload)                                                                         \
    "{\"id\":\"" id "\",\"source\":\"macbook\",\"timestamp\":\"2026-02-03T14:30:00Z\","            \
    "\"type\":\"tool\",\"payload\":" payload "}"

/* What was found in the body judged last. */
static struct batch batch;

/* The copy has just its NUL behind it. */
static inline enum error judge(const char *body, size_t length)
{
    char *copy = malloc(length + 1);
    enum error error;

    memcpy(copy, body, length);
    copy[length] = '\0';
    error = batch_split(&batch, copy, length);
    if (error == ERROR_NONE)
        error = batch_check(&batch, "macbook", 7);
    free(copy);
    return error;
}

static inline void assert_judged(const char *body, enum error expected)
{
    enum error error = judge(body, strlen(body));

    if (error != expected)
        fail_msg("%.200s: %d, expected %d", body, (int)error, (int)expected);
}

/* The verdict on a batch of one event. */
static inline enum error judge_event(const char *event, size_t length)
{
    char *body = malloc(length + 2);
    enum error error;

    body[0] = '[';
    memcpy(body + 1, event, length);
    body[length + 1] = ']';
    error = judge(body, length + 2);
    free(body);
    return error;
}

/* The same, with a member in front whose name nobody can skim. */
static inline enum error judge_parsed_event(const char *event, size_t length)
{
    static const char FIRST[] = "{\"\\u0078\":0,";
    size_t more = strlen(FIRST) - 1;
    char *longer = malloc(length + more);
    enum error error;

    memcpy(longer, FIRST, strlen(FIRST));
    memcpy(longer + strlen(FIRST), event + 1, length - 1);
    error = judge_event(longer, length + more);
    free(longer);
    return error;
}

/* An event to be judged like that, skimmed and parsed. */
static inline void assert_event(const char *event, enum error expected)
{
    size_t length = strlen(event);
    enum error skimmed = judge_event(event, length);
    enum error parsed = skimmed;

    if (event[0] == '{' && event[1] == '"' && length + 10 <= BATCH_EVENT_BYTES)
        parsed = judge_parsed_event(event, length);
    if (skimmed != expected || parsed != expected)
        fail_msg("%.200s: %d, parsed %d, expected %d", event, (int)skimmed, (int)parsed,
                 (int)expected);
}

#endif
