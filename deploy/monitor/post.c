#include "post.h"

#include "base/clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 1000 };

struct post {
    CURL *easy;
    CURLM *multi;
    char failure[CURL_ERROR_SIZE];
    bool is_too_large;
    char *body;
    size_t length;
    size_t room;
};

static bool has_part(CURLU *url, CURLUPart part)
{
    char *text = NULL;
    bool has = curl_url_get(url, part, &text, 0) == CURLUE_OK && *text != '\0';

    curl_free(text);
    return has;
}

static const char *check_url(CURLU *url, const char *base)
{
    char *scheme = NULL;
    bool is_https;

    if (curl_url_set(url, CURLUPART_URL, base, 0) != CURLUE_OK)
        return "must be a URL such as https://steep.example";
    is_https = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
               strcmp(scheme, "https") == 0;
    curl_free(scheme);
    if (!is_https)
        return "must begin with https://";
    /* libcurl reports an empty query or fragment as none, but /ingest would become part of it. */
    if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD) ||
        strpbrk(base, "?#") != NULL)
        return "must not have a user, query or fragment";
    return NULL;
}

const char *post_make_url(const char *base, char url[static POST_URL_BYTES])
{
    size_t length = strlen(base);
    CURLU *parsed = curl_url();
    const char *problem = parsed == NULL ? "out of memory" : check_url(parsed, base);

    curl_url_cleanup(parsed);
    if (problem != NULL)
        return problem;
    while (length > 0 && base[length - 1] == '/')
        length--;
    if (length + sizeof("/ingest") > POST_URL_BYTES)
        return "is too long";
    snprintf(url, POST_URL_BYTES, "%.*s/ingest", (int)length, base);
    return NULL;
}

const char *post_check_ca(const char *path)
{
    static const char BEGIN[] = "-----BEGIN CERTIFICATE-----";
    FILE *file = fopen(path, "re");
    char line[256];
    bool is_found = false;

    if (file == NULL)
        return strerror(errno);
    while (!is_found && fgets(line, sizeof(line), file) != NULL)
        is_found = strncmp(line, BEGIN, strlen(BEGIN)) == 0;
    fclose(file);
    return is_found ? NULL : "contains no certificate in PEM format";
}

bool post_init(void)
{
    /* libcurl would write the session keys of every connection to this file. */
    unsetenv("SSLKEYLOGFILE");
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static size_t receive(char *data, size_t size, size_t count, void *context)
{
    struct post *post = context;
    size_t bytes = size * count;

    if (post->length + bytes > POST_RESPONSE_BYTES) {
        post->is_too_large = true;
        return 0;
    }
    if (post->length + bytes + 1 > post->room) {
        size_t room = (post->length + bytes) * 2 + 1;
        char *body = realloc(post->body, room);

        if (body == NULL)
            return 0;
        post->body = body;
        post->room = room;
    }
    memcpy(post->body + post->length, data, bytes);
    post->length += bytes;
    post->body[post->length] = '\0';
    return bytes;
}

/* Sets the options that all requests share. */
static bool set_options(struct post *post, const char *url, const char *ca_file)
{
    CURL *easy = post->easy;
    bool is_set =
        curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;

    /* A changed CA file takes effect with the next connection; by default, after a day. */
    is_set = is_set && curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L) == CURLE_OK;
    /* Debian's libcurl also trusts a folder of certificates unless told otherwise. */
    if (ca_file != NULL)
        is_set = is_set && curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) == CURLE_OK &&
                 curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* don't wait for a name lookup */
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "steep-monitor/" STEEP_VERSION);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, post->failure);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, post);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)POST_CONNECT_TIMEOUT_MS);
    return is_set;
}

struct post *post_new(const char *url, const char *ca_file)
{
    struct post *post = calloc(1, sizeof(*post));

    if (post == NULL)
        return NULL;
    post->easy = curl_easy_init();
    post->multi = curl_multi_init();
    if (post->easy == NULL || post->multi == NULL || !set_options(post, url, ca_file)) {
        post_free(post);
        return NULL;
    }
    return post;
}

void post_free(struct post *post)
{
    if (post == NULL)
        return;
    curl_easy_cleanup(post->easy);
    curl_multi_cleanup(post->multi);
    free(post->body);
    free(post);
}

/* Appends a header; frees the list and returns NULL if there is no memory. */
static struct curl_slist *add_header(struct curl_slist *headers, const char *name,
                                     const char *value)
{
    char line[512];
    struct curl_slist *longer;

    snprintf(line, sizeof(line), "%s: %s", name, value);
    longer = curl_slist_append(headers, line);
    if (longer == NULL)
        curl_slist_free_all(headers);
    return longer;
}

static struct curl_slist *make_headers(const char *source, const char *signature)
{
    /* An empty "Expect:" keeps libcurl from waiting for a 100 before it sends a large body. */
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");

    if (headers != NULL)
        headers = add_header(headers, "Content-Type", "application/json");
    if (headers != NULL)
        headers = add_header(headers, "X-Source-ID", source);
    if (headers != NULL)
        headers = add_header(headers, "X-Signature", signature);
    return headers;
}

/* Runs the transfer until it ends or times out. */
static CURLcode perform(struct post *post, size_t length, post_limit *limit, void *context)
{
    int64_t until = clock_ms() + POST_TIMEOUT_MS + (int64_t)(length / POST_MIN_BYTES_PER_MS);
    CURLcode result = CURLE_OPERATION_TIMEDOUT;
    int running = 1;
    int ignored;

    if (curl_multi_add_handle(post->multi, post->easy) != CURLM_OK)
        return CURLE_FAILED_INIT;
    while (running > 0) {
        CURLMsg *message;
        int64_t left = limit(context);
        int wait = clock_left(until);

        if (left < wait)
            wait = left < 0 ? 0 : (int)left;
        if (wait == 0)
            break;
        if (curl_multi_perform(post->multi, &running) != CURLM_OK)
            break;
        if (running > 0)
            curl_multi_poll(post->multi, NULL, 0, wait < POLL_MS ? wait : POLL_MS, NULL);
        while ((message = curl_multi_info_read(post->multi, &ignored)) != NULL) {
            if (message->msg == CURLMSG_DONE)
                result = message->data.result;
        }
    }
    if (running > 0)
        snprintf(post->failure, sizeof(post->failure), "the request timed out");
    curl_multi_remove_handle(post->multi, post->easy);
    return result;
}

static void read_response(struct post *post, CURLcode result, struct post_response *response)
{
    struct curl_header *header;
    long status = 0;

    curl_easy_getinfo(post->easy, CURLINFO_RESPONSE_CODE, &status);
    response->status = (int)status;
    response->is_complete = result == CURLE_OK && status >= 200;
    response->body = post->body == NULL ? "" : post->body;
    response->length = post->length;
    if (curl_easy_header(post->easy, "Retry-After", 0, CURLH_HEADER, -1, &header) == CURLHE_OK)
        snprintf(response->retry_after, sizeof(response->retry_after), "%s", header->value);
    if (result == CURLE_OK)
        return;
    snprintf(response->failure, sizeof(response->failure), "%.*s", POST_FAILURE_BYTES - 1,
             post->is_too_large         ? "the response is too large"
             : post->failure[0] != '\0' ? post->failure
                                        : curl_easy_strerror(result));
}

void post_send(struct post *post, const char *source, const char *body, size_t length,
               const char *signature, post_limit *limit, void *context,
               struct post_response *response)
{
    int64_t began = clock_ms();
    struct curl_slist *headers = make_headers(source, signature);

    *response = (struct post_response){.body = ""};
    post->length = 0;
    post->is_too_large = false;
    post->failure[0] = '\0';
    if (headers != NULL) {
        curl_easy_setopt(post->easy, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(post->easy, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(post->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
        read_response(post, perform(post, length, limit, context), response);
        curl_easy_setopt(post->easy, CURLOPT_HTTPHEADER, NULL);
        curl_easy_setopt(post->easy, CURLOPT_POSTFIELDS, NULL);
    } else {
        snprintf(response->failure, sizeof(response->failure), "out of memory");
    }
    curl_slist_free_all(headers);
    response->ms = clock_ms() - began;
}

void post_wake(struct post *post)
{
    curl_multi_wakeup(post->multi);
}
