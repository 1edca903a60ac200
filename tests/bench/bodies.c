#include "bodies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ID_SUFFIX = 20,
    /* The maximum size of an event without its padding. */
    EVENT_FRAME_BYTES = 320,
};

static void derive_keys(const char *source,
                        unsigned char public_key[static crypto_sign_PUBLICKEYBYTES],
                        unsigned char secret_key[static crypto_sign_SECRETKEYBYTES])
{
    unsigned char seed[crypto_sign_SEEDBYTES];

    crypto_generichash(seed, sizeof(seed), (const unsigned char *)source, strlen(source), NULL, 0);
    crypto_sign_seed_keypair(public_key, secret_key, seed);
}

void bodies_source(int number, char source[static BODIES_SOURCE_BYTES],
                   char key[static BODIES_KEY_BYTES])
{
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
    unsigned char secret_key[crypto_sign_SECRETKEYBYTES];

    snprintf(source, BODIES_SOURCE_BYTES, "bench-%d", number);
    derive_keys(source, public_key, secret_key);
    sodium_bin2base64(key, BODIES_KEY_BYTES, public_key, sizeof(public_key),
                      sodium_base64_VARIANT_ORIGINAL);
}

static void make_id(char id[static ID_SUFFIX + 1])
{
    static const char LETTERS[] = "0123456789abcdefghijklmnopqrstuv";
    unsigned char random[ID_SUFFIX];

    randombytes_buf(random, sizeof(random));
    for (size_t i = 0; i < ID_SUFFIX; i++)
        id[i] = LETTERS[random[i] % 32];
    id[ID_SUFFIX] = '\0';
}

/* The timestamps are in order within the last minute, as a monitor's are. */
static void make_timestamp(char text[static 32], int position, int events)
{
    struct timespec now;
    struct tm utc;
    int back_ms = 60000 - (int)(60000LL * position / events);
    long long at_ms;
    time_t seconds;
    char date[24];

    clock_gettime(CLOCK_REALTIME, &now);
    at_ms = (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000 - back_ms;
    seconds = (time_t)(at_ms / 1000);
    gmtime_r(&seconds, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, 32, "%s.%03dZ", date, (int)(at_ms % 1000));
}

/* Writes one event, padded to event_bytes. */
static size_t write_event(char *out, const char *source, int position, int events,
                          size_t event_bytes)
{
    static const char *const TYPES[] = {"activity", "tool", "tool", "session", "agent", "summary"};
    char id[ID_SUFFIX + 1], timestamp[32];
    size_t length, padding;

    make_id(id);
    make_timestamp(timestamp, position, events);
    length = (size_t)sprintf(out,
                             "{\"id\":\"evt_%s\",\"source\":\"%s\",\"timestamp\":\"%s\","
                             "\"eventType\":\"%s\",\"payload\":{\"sessionId\":"
                             "\"3f2a9c1e-7b4d-4e8f-9a6b-%012d\",\"tool\":\"Read\","
                             "\"status\":\"completed\",\"durationMs\":%d,\"context\":\"",
                             id, source, timestamp, TYPES[position % 6], position, position * 7);
    padding = event_bytes > length + 4 ? event_bytes - length - 4 : 0;
    memset(out + length, 'x', padding);
    memcpy(out + length + padding, "\"}}", 3);
    return length + padding + 3;
}

static void sign(struct body *body)
{
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
    unsigned char secret_key[crypto_sign_SECRETKEYBYTES];
    unsigned char signature[crypto_sign_BYTES];

    derive_keys(body->source, public_key, secret_key);
    crypto_sign_detached(signature, NULL, (const unsigned char *)body->text, body->length,
                         secret_key);
    sodium_bin2base64(body->signature, sizeof(body->signature), signature, sizeof(signature),
                      sodium_base64_VARIANT_ORIGINAL);
}

void bodies_make(struct body *body, int source, int events, size_t event_bytes)
{
    size_t room = (size_t)events * (event_bytes + EVENT_FRAME_BYTES) + 2;
    char key[BODIES_KEY_BYTES];

    bodies_source(source, body->source, key);
    body->text = malloc(room);
    if (body->text == NULL) {
        perror("load");
        exit(EXIT_FAILURE);
    }
    body->length = 0;
    for (int i = 0; i < events; i++) {
        body->text[body->length++] = i == 0 ? '[' : ',';
        body->length +=
            write_event(body->text + body->length, body->source, i, events, event_bytes);
    }
    body->text[body->length++] = ']';
    sign(body);
}
