#include "client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_SECONDS = 60 };

struct https {
    CURL *curl;
    struct curl_slist *token;
    char *text; /* the last answer's body, NUL-terminated */
    size_t length;
    size_t room;
};

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value == NULL ? "" : value;
}

static size_t receive(char *data, size_t size, size_t count, void *context)
{
    struct https *https = context;
    size_t bytes = size * count;

    if (https->length + bytes + 1 > https->room) {
        size_t room = (https->length + bytes + 1) * 2;
        char *text = realloc(https->text, room);

        if (text == NULL)
            return 0;
        https->text = text;
        https->room = room;
    }
    memcpy(https->text + https->length, data, bytes);
    https->length += bytes;
    https->text[https->length] = '\0';
    return bytes;
}

static void https_close(void *connection)
{
    struct https *https = connection;

    curl_slist_free_all(https->token);
    curl_easy_cleanup(https->curl);
    free(https->text);
    free(https);
}

static void *https_open(void)
{
    struct https *https = calloc(1, sizeof(*https));
    char token[256];

    if (https == NULL)
        return NULL;
    https->curl = curl_easy_init();
    snprintf(token, sizeof(token), "Authorization: Bearer %s", variable("STEEP_TOKEN"));
    https->token = curl_slist_append(NULL, token);
    if (https->curl == NULL || https->token == NULL) {
        https_close(https);
        return NULL;
    }
    curl_easy_setopt(https->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(https->curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(https->curl, CURLOPT_TIMEOUT, (long)TIMEOUT_SECONDS);
    curl_easy_setopt(https->curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(https->curl, CURLOPT_CAINFO, variable("STEEP_CA"));
    curl_easy_setopt(https->curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(https->curl, CURLOPT_WRITEDATA, https);
    return https;
}

/* The number after a member's name; 0 if there is none. */
static long long number_of(const char *text, const char *member)
{
    const char *at = strstr(text, member);

    return at == NULL ? 0 : strtoll(at + strlen(member), NULL, 10);
}

static bool perform(struct https *https, const char *path, struct answer *answer)
{
    char url[1024];
    long status = 0;
    CURLcode code;

    snprintf(url, sizeof(url), "%s%s", variable("STEEP_URL"), path);
    curl_easy_setopt(https->curl, CURLOPT_URL, url);
    https->length = 0;
    code = curl_easy_perform(https->curl);
    curl_easy_getinfo(https->curl, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK || status != 200 || https->length == 0) {
        fprintf(stderr, "load: %s: status %ld, %s: %.200s\n", path, status,
                curl_easy_strerror(code), https->length > 0 ? https->text : "");
        return false;
    }
    answer->inserted = number_of(https->text, "\"inserted\":");
    answer->rows = number_of(https->text, "\"totalCount\":");
    answer->bytes = https->length;
    return true;
}

static struct curl_slist *batch_headers(const struct body *body)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    char line[256];

    snprintf(line, sizeof(line), "X-Source-ID: %s", body->source);
    headers = curl_slist_append(headers, line);
    snprintf(line, sizeof(line), "X-Signature: %s", body->signature);
    headers = curl_slist_append(headers, line);
    /* Otherwise curl waits for 100 Continue before it sends a large body. */
    return curl_slist_append(headers, "Expect:");
}

static bool https_send(void *connection, const struct work *work, struct answer *answer)
{
    struct https *https = connection;
    struct curl_slist *headers;
    bool is_done;

    if (work->body == NULL) {
        curl_easy_setopt(https->curl, CURLOPT_HTTPHEADER, https->token);
        return perform(https, work->path, answer);
    }
    headers = batch_headers(work->body);
    curl_easy_setopt(https->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(https->curl, CURLOPT_POSTFIELDS, work->body->text);
    curl_easy_setopt(https->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)work->body->length);
    is_done = perform(https, "/ingest", answer);
    curl_easy_setopt(https->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return is_done;
}

const struct client CLIENT_HTTPS = {https_open, https_send, https_close};
