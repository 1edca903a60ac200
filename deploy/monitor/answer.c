#include "answer.h"

#include <json-c/json.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 8, STORED_BYTES = 64 * 1024, RETRY_AFTER = -1, BACK_OFF = -2 };

/* What to do for each status; other 5xx back off, anything else is retried slowly. */
static const struct rule {
    int status;
    enum answer_action action;
    int retry_ms;
    const char *detail;
} RULES[] = {
    {200, ANSWER_STORED, 0, "stored"},
    {400, ANSWER_HALVE, 0, "batch refused"},
    {401, ANSWER_RETRY, ANSWER_SLOW_RETRY_MS, "not authorized (is the key registered?)"},
    {403, ANSWER_RETRY, ANSWER_SLOW_RETRY_MS, "access denied (check STEEP_URL)"},
    {404, ANSWER_RETRY, ANSWER_SLOW_RETRY_MS, "no /ingest at this address (check STEEP_URL)"},
    {405, ANSWER_RETRY, ANSWER_SLOW_RETRY_MS, "POST not allowed (check STEEP_URL)"},
    {408, ANSWER_RETRY, BACK_OFF, "request timed out"},
    {413, ANSWER_HALVE, 0, "batch too large"},
    {422, ANSWER_REJECT_LISTED, 0, "events rejected"},
    {429, ANSWER_RETRY, RETRY_AFTER, "rate limited"},
    {503, ANSWER_RETRY, RETRY_AFTER, "server unavailable"},
};
static const struct rule NO_RESPONSE = {0, ANSWER_RETRY, BACK_OFF, "request failed"};
static const struct rule REDIRECT = {300, ANSWER_RETRY, ANSWER_SLOW_RETRY_MS,
                                     "redirected (check STEEP_URL)"};
static const struct rule SERVER_ERROR = {500, ANSWER_RETRY, BACK_OFF, "server error"};
static const struct rule UNEXPECTED = {600, ANSWER_RETRY, ANSWER_SLOW_RETRY_MS,
                                       "unexpected status (check STEEP_URL)"};

static const struct rule *find_rule(int status)
{
    for (size_t i = 0; i < sizeof(RULES) / sizeof(RULES[0]); i++) {
        if (RULES[i].status == status)
            return &RULES[i];
    }
    if (status == 0)
        return &NO_RESPONSE;
    if (status >= 300 && status < 400)
        return &REDIRECT;
    return status >= 500 && status < 600 ? &SERVER_ERROR : &UNEXPECTED;
}

int64_t answer_retry_after(const char *text, time_t now)
{
    static const char *const FORMATS[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                          "%a %b %d %H:%M:%S %Y"};
    int64_t seconds = -1;

    if (*text != '\0' && strspn(text, "0123456789") == strlen(text)) {
        seconds = strlen(text) > 9 ? ANSWER_MAX_RETRY_AFTER_MS : (int64_t)strtol(text, NULL, 10);
    } else {
        for (size_t i = 0; i < sizeof(FORMATS) / sizeof(FORMATS[0]) && seconds < 0; i++) {
            struct tm tm = {0};
            const char *end = strptime(text, FORMATS[i], &tm);

            if (end == NULL || *end != '\0')
                continue;
            seconds = (int64_t)timegm(&tm) - (int64_t)now;
            if (seconds < 0)
                seconds = 0;
        }
    }
    if (seconds < 0)
        return -1;
    if (seconds < ANSWER_MIN_RETRY_AFTER_MS / 1000)
        return ANSWER_MIN_RETRY_AFTER_MS;
    return seconds > ANSWER_MAX_RETRY_AFTER_MS / 1000 ? ANSWER_MAX_RETRY_AFTER_MS : seconds * 1000;
}

int64_t answer_backoff(unsigned failures)
{
    int64_t max = ANSWER_MIN_BACKOFF_MS;

    for (unsigned i = 1; i < failures && max < ANSWER_MAX_BACKOFF_MS; i++)
        max *= 2;
    if (max > ANSWER_MAX_BACKOFF_MS)
        max = ANSWER_MAX_BACKOFF_MS;
    return (int64_t)randombytes_uniform((uint32_t)max + 1);
}

/* Parses a body of at most max bytes as one JSON object; NULL if it isn't one. Caller frees. */
static struct json_object *parse_object(const struct post_response *response, size_t max)
{
    struct json_tokener *tokener;
    struct json_object *object;

    if (!response->is_complete || response->length == 0 || response->length > max)
        return NULL;
    tokener = json_tokener_new_ex(DEPTH);
    if (tokener == NULL)
        return NULL;
    /* Not JSON_TOKENER_STRICT, in which json-c 0.18 refuses every string beyond ASCII. */
    json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
    object = json_tokener_parse_ex(tokener, response->body, (int)response->length);
    if (json_tokener_get_error(tokener) != json_tokener_success ||
        !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        object = NULL;
    } else {
        size_t end = json_tokener_get_parse_end(tokener);

        if (end + strspn(response->body + end, " \t\r\n") != response->length) {
            json_object_put(object);
            object = NULL;
        }
    }
    json_tokener_free(tokener);
    return object;
}

/* Copies a string member, truncated to size; empty if there is none. */
static void copy_string(struct json_object *object, const char *name, char *out, size_t size)
{
    struct json_object *value;

    out[0] = '\0';
    if (json_object_object_get_ex(object, name, &value) &&
        json_object_is_type(value, json_type_string))
        snprintf(out, size, "%s", json_object_get_string(value));
}

/* The value of a member that is an integer of 0 or more; else -1. */
static int64_t get_count(struct json_object *object, const char *name)
{
    struct json_object *value;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
        return -1;
    return json_object_get_int64(value);
}

/*
 * Whether the body of a 200 acknowledges this batch. Only "inserted" is required: the data model's
 * own endpoint reports no duplicates, and inserts 0 events of a batch that is sent again.
 */
static bool is_acknowledgement(struct json_object *object, size_t events)
{
    int64_t inserted = get_count(object, "inserted");

    return inserted >= 0 && inserted <= (int64_t)events;
}

/* Reads the list of a 422; false if any of it is invalid. */
static bool read_rejected(struct json_object *object, size_t events, struct answer *answer)
{
    struct json_object *list;
    size_t count;

    if (!json_object_object_get_ex(object, "rejected", &list) ||
        !json_object_is_type(list, json_type_array))
        return false;
    count = json_object_array_length(list);
    if (count == 0 || count > events)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct json_object *item = json_object_array_get_idx(list, i);
        struct answer_rejection *rejection = &answer->rejected[i];
        int64_t index;

        if (!json_object_is_type(item, json_type_object))
            return false;
        index = get_count(item, "index");
        if (index < 0 || index >= (int64_t)events ||
            (i > 0 && (size_t)index <= answer->rejected[i - 1].index))
            return false;
        rejection->index = (size_t)index;
        copy_string(item, "error", rejection->code, sizeof(rejection->code));
        copy_string(item, "message", rejection->message, sizeof(rejection->message));
        /* A stranger's list says nothing about our events. */
        if (strcmp(rejection->code,
                   error_entry(error_of_event(rejection->code, strlen(rejection->code)))->code) !=
            0)
            return false;
    }
    answer->rejected_count = count;
    return true;
}

/* What the response's body adds to its status. */
static void read_body(const struct post_response *response, size_t events, struct answer *answer)
{
    struct json_object *object =
        parse_object(response, response->status == 200 ? STORED_BYTES : POST_RESPONSE_BYTES);

    if (object != NULL) {
        copy_string(object, "error", answer->code, sizeof(answer->code));
        copy_string(object, "message", answer->message, sizeof(answer->message));
    }
    if (answer->action == ANSWER_STORED &&
        (object == NULL || !is_acknowledgement(object, events))) {
        answer->action = ANSWER_RETRY;
        answer->retry_ms = BACK_OFF;
        answer->detail = "invalid acknowledgement";
    } else if (answer->action == ANSWER_REJECT_LISTED &&
               (object == NULL || !read_rejected(object, events, answer))) {
        answer->action = ANSWER_HALVE;
        answer->detail = "events rejected without a valid list";
    }
    json_object_put(object);
}

void answer_read(const struct post_response *response, size_t events, time_t now,
                 struct answer *answer)
{
    const struct rule *rule = find_rule(response->status);

    answer->status = response->status;
    answer->action = rule->action;
    answer->retry_ms = rule->retry_ms;
    answer->detail = rule->detail;
    answer->code[0] = answer->message[0] = '\0';
    answer->rejected_count = 0;
    read_body(response, events, answer);
    /* An incomplete response rejects nothing; a 413 needs no body to be believed. */
    if (!response->is_complete && response->status != 0 && answer->action == ANSWER_HALVE &&
        (response->status != 413 || events == 1)) {
        answer->action = ANSWER_RETRY;
        answer->retry_ms = BACK_OFF;
        answer->detail = "incomplete response";
    }
    if (answer->retry_ms == RETRY_AFTER)
        answer->retry_ms = answer_retry_after(response->retry_after, now);
    else if (answer->retry_ms == BACK_OFF)
        answer->retry_ms = -1;
    if (answer->code[0] == '\0')
        snprintf(answer->code, sizeof(answer->code), "http_%d", response->status);
    if (response->failure[0] != '\0')
        snprintf(answer->message, sizeof(answer->message), "%s", response->failure);
}
