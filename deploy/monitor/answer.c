#include "answer.h"

#include <json-c/json.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 8, STORED_BYTES = 64 * 1024, SAID = -1, BACK_OFF = -2 };

/* What a status means. Those not listed here: 5xx is tried again with back-off, others slowly. */
static const struct meaning {
    int status;
    enum answer_action action;
    int wait_ms;
    const char *detail;
} MEANINGS[] = {
    {200, ANSWER_FORGET, 0, "stored"},
    {400, ANSWER_SET_ASIDE, 0, "the server can't read this batch; it is set aside"},
    {401, ANSWER_WAIT, ANSWER_SLOW_MS,
     "the server doesn't take this source's signature: is its key registered?"},
    {403, ANSWER_WAIT, ANSWER_SLOW_MS, "the server forbids it: is STEEP_URL right?"},
    {404, ANSWER_WAIT, ANSWER_SLOW_MS, "there is no /ingest: is STEEP_URL right?"},
    {405, ANSWER_WAIT, ANSWER_SLOW_MS, "the server takes no POST: is STEEP_URL right?"},
    {408, ANSWER_WAIT, BACK_OFF, "the server took too long"},
    {413, ANSWER_HALVE, 0, "the batch is too large; it is halved"},
    {422, ANSWER_SET_ASIDE_LISTED, 0, "events are refused; they are set aside"},
    {429, ANSWER_WAIT, SAID, "the server asks for patience"},
    {503, ANSWER_WAIT, SAID, "the server is not available"},
};
static const struct meaning NOTHING = {0, ANSWER_WAIT, BACK_OFF, "no answer"};
static const struct meaning REDIRECT = {300, ANSWER_WAIT, ANSWER_SLOW_MS,
                                        "the server is elsewhere: is STEEP_URL right?"};
static const struct meaning FAULT = {500, ANSWER_WAIT, BACK_OFF, "a fault of the server"};
static const struct meaning STRANGE = {600, ANSWER_WAIT, ANSWER_SLOW_MS,
                                       "an answer that means nothing: is STEEP_URL right?"};

static const struct meaning *find_meaning(int status)
{
    for (size_t i = 0; i < sizeof(MEANINGS) / sizeof(MEANINGS[0]); i++) {
        if (MEANINGS[i].status == status)
            return &MEANINGS[i];
    }
    if (status == 0)
        return &NOTHING;
    if (status >= 300 && status < 400)
        return &REDIRECT;
    return status >= 500 && status < 600 ? &FAULT : &STRANGE;
}

int64_t answer_retry_after(const char *text, time_t now)
{
    static const char *const FORMS[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                        "%a %b %d %H:%M:%S %Y"};
    int64_t seconds = -1;

    if (*text != '\0' && strspn(text, "0123456789") == strlen(text)) {
        seconds = strlen(text) > 9 ? ANSWER_RETRY_MOST_MS : (int64_t)strtol(text, NULL, 10);
    } else {
        for (size_t i = 0; i < sizeof(FORMS) / sizeof(FORMS[0]) && seconds < 0; i++) {
            struct tm tm = {0};
            const char *end = strptime(text, FORMS[i], &tm);

            if (end == NULL || *end != '\0')
                continue;
            seconds = (int64_t)timegm(&tm) - (int64_t)now;
            if (seconds < 0)
                seconds = 0;
        }
    }
    if (seconds < 0)
        return -1;
    if (seconds < ANSWER_RETRY_LEAST_MS / 1000)
        return ANSWER_RETRY_LEAST_MS;
    return seconds > ANSWER_RETRY_MOST_MS / 1000 ? ANSWER_RETRY_MOST_MS : seconds * 1000;
}

int64_t answer_backoff(unsigned failures)
{
    int64_t most = ANSWER_BACKOFF_FIRST_MS;

    for (unsigned i = 1; i < failures && most < ANSWER_BACKOFF_MOST_MS; i++)
        most *= 2;
    if (most > ANSWER_BACKOFF_MOST_MS)
        most = ANSWER_BACKOFF_MOST_MS;
    return (int64_t)randombytes_uniform((uint32_t)most + 1);
}

/* Reads a body as one JSON object; NULL for anything else. Caller frees. */
static struct json_object *read_object(const struct post_answer *post, size_t most)
{
    struct json_tokener *tokener;
    struct json_object *object;

    if (!post->is_whole || post->length == 0 || post->length > most)
        return NULL;
    tokener = json_tokener_new_ex(DEPTH);
    if (tokener == NULL)
        return NULL;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    object = json_tokener_parse_ex(tokener, post->body, (int)post->length);
    if (json_tokener_get_error(tokener) != json_tokener_success ||
        !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        object = NULL;
    } else {
        size_t end = json_tokener_get_parse_end(tokener);

        if (end + strspn(post->body + end, " \t\r\n") != post->length) {
            json_object_put(object);
            object = NULL;
        }
    }
    json_tokener_free(tokener);
    return object;
}

/* Copies a member that is a string, as much as fits; empty where there is none. */
static void copy_member(struct json_object *object, const char *name, char *out, size_t size)
{
    struct json_object *value;

    out[0] = '\0';
    if (json_object_object_get_ex(object, name, &value) &&
        json_object_is_type(value, json_type_string))
        snprintf(out, size, "%s", json_object_get_string(value));
}

/* A member that is a whole number from 0 on; -1 where it is not. */
static int64_t number_member(struct json_object *object, const char *name)
{
    struct json_object *value;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
        return -1;
    return json_object_get_int64(value);
}

/*
 * Whether a 200 says how many events it stored, and may mean this batch. The data model's own
 * endpoint counts no duplicates, and on a second try stores none: only inserted is asked for.
 */
static bool is_receipt(struct json_object *object, size_t events)
{
    int64_t inserted = number_member(object, "inserted");

    return inserted >= 0 && inserted <= (int64_t)events;
}

/* Reads the list of a 422; false unless all of it can be believed. */
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
        index = number_member(item, "index");
        if (index < 0 || index >= (int64_t)events ||
            (i > 0 && (size_t)index <= answer->rejected[i - 1].index))
            return false;
        rejection->index = (size_t)index;
        copy_member(item, "error", rejection->code, sizeof(rejection->code));
        copy_member(item, "message", rejection->message, sizeof(rejection->message));
        if (rejection->code[0] == '\0')
            return false;
    }
    answer->rejected_count = count;
    return true;
}

/* What the server's own words change. */
static void read_body(const struct post_answer *post, size_t events, struct answer *answer,
                      const char **detail)
{
    struct json_object *object =
        read_object(post, post->status == 200 ? STORED_BYTES : POST_ANSWER_BYTES);

    if (object != NULL) {
        copy_member(object, "error", answer->code, sizeof(answer->code));
        copy_member(object, "message", answer->message, sizeof(answer->message));
    }
    if (answer->action == ANSWER_FORGET && (object == NULL || !is_receipt(object, events))) {
        answer->action = ANSWER_WAIT;
        answer->wait_ms = BACK_OFF;
        *detail = "a 200 whose body can't be read; the batch is sent again";
    } else if (answer->action == ANSWER_SET_ASIDE_LISTED &&
               (object == NULL || !read_rejected(object, events, answer))) {
        answer->action = ANSWER_HALVE;
        *detail = "events are refused, without a list that says which; the batch is halved";
    } else if (answer->action == ANSWER_SET_ASIDE && events > 1 &&
               strcmp(answer->code, "batch_too_large") == 0) {
        answer->action = ANSWER_HALVE;
        *detail = "the batch is too large; it is halved";
    }
    json_object_put(object);
}

void answer_judge(const struct post_answer *post, size_t events, time_t now, struct answer *answer)
{
    const struct meaning *meaning = find_meaning(post->status);
    const char *detail = meaning->detail;
    const char *words;

    answer->action = meaning->action;
    answer->wait_ms = meaning->wait_ms;
    answer->code[0] = answer->message[0] = answer->detail[0] = '\0';
    answer->rejected_count = 0;
    read_body(post, events, answer, &detail);
    /* Nothing is set aside for an answer that broke off; a 413 says all in its status. */
    if (!post->is_whole && post->status != 0 &&
        (answer->action == ANSWER_SET_ASIDE ||
         (answer->action == ANSWER_HALVE && (post->status != 413 || events == 1)))) {
        answer->action = ANSWER_WAIT;
        answer->wait_ms = BACK_OFF;
        detail = "an answer that broke off";
    }
    if (answer->wait_ms == SAID)
        answer->wait_ms = answer_retry_after(post->retry_after, now);
    else if (answer->wait_ms == BACK_OFF)
        answer->wait_ms = -1;
    if (answer->code[0] == '\0')
        snprintf(answer->code, sizeof(answer->code), "http_%d", post->status);
    if (answer->action == ANSWER_FORGET)
        return;
    words = post->failure[0] != '\0' ? post->failure : answer->message;
    snprintf(answer->detail, sizeof(answer->detail), "%s%s%s", detail, *words != '\0' ? ": " : "",
             words);
}
