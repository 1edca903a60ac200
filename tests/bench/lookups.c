/*
 * lookups KEYS: how long a keyring of so many sources, with a key each, takes to look one of
 * them up, for a second while nothing changes, and for a second while another thread changes
 * one source after the other. Prints a JSON object; times are in microseconds.
 */
#include "auth/keyring.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct keyring *keyring;
static atomic_bool is_over;

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "lookups: %s\n", what);
    exit(1);
}

/* As keyring fills the database. */
static size_t name_of(unsigned int number, char name[static 32])
{
    return (size_t)snprintf(name, 32, "monitor-%08u.example", number);
}

static void add(struct keyring_draft *draft, unsigned int number)
{
    unsigned char key[SIGNATURE_KEY_BYTES];
    char name[32];
    size_t length = name_of(number, name);

    randombytes_buf(key, sizeof(key));
    if (!keyring_draft_key(draft, name, length, key))
        fail("out of memory");
}

static struct keyring_draft *new_draft(void)
{
    struct keyring_draft *draft = keyring_draft_new();

    if (draft == NULL)
        fail("out of memory");
    return draft;
}

/* Looks sources up for a second: the mean, and the longest. */
static void look_up(unsigned int keys, double *mean, double *most)
{
    unsigned char found[KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES];
    double begun = now_us();
    double last = begun;
    unsigned int count = 0;

    for (*most = 0; last < begun + 1e6; count++) {
        char name[32];
        size_t length = name_of(randombytes_uniform(keys), name);
        double started = now_us();
        bool is_complete;

        if (keyring_find_keys(keyring, name, length, found, &is_complete) != 1)
            fail("a source was not found");
        last = now_us();
        *mean += last - started;
        if (last - started > *most)
            *most = last - started;
    }
    *mean /= count;
}

/* Gives a source another key, again and again; returns the mean time of that. */
static void *change(void *arg)
{
    unsigned int keys = *(const unsigned int *)arg;
    static double mean;
    unsigned int count = 0;
    double sum = 0;

    while (!atomic_load(&is_over)) {
        struct keyring_draft *draft = new_draft();
        double started = now_us();

        add(draft, randombytes_uniform(keys));
        if (!keyring_change(keyring, draft))
            fail("out of memory");
        sum += now_us() - started;
        count++;
        keyring_draft_free(draft);
    }
    mean = sum / count;
    return &mean;
}

int main(int argc, char **argv)
{
    unsigned int keys = argc == 2 ? (unsigned int)strtoul(argv[1], NULL, 10) : 0;
    double quiet = 0, quiet_most, busy = 0, busy_most, started, filled;
    struct keyring_draft *draft;
    pthread_t thread;
    void *mean;

    if (keys == 0 || sodium_init() < 0 || (keyring = keyring_new()) == NULL)
        fail("usage: lookups KEYS");
    draft = new_draft();
    started = now_us();
    for (unsigned int i = 0; i < keys; i++)
        add(draft, i);
    if (!keyring_replace(keyring, draft))
        fail("out of memory");
    filled = now_us() - started;
    keyring_draft_free(draft);

    look_up(keys, &quiet, &quiet_most);
    if (pthread_create(&thread, NULL, change, &keys) != 0)
        fail("no thread");
    look_up(keys, &busy, &busy_most);
    atomic_store(&is_over, true);
    pthread_join(thread, &mean);
    printf("{\"fill_us\": %.0f, \"lookup_us\": %.2f, \"lookup_most_us\": %.0f, \"change_us\": %.0f,"
           " \"changing_lookup_us\": %.2f, \"changing_lookup_most_us\": %.0f}\n",
           filled, quiet, quiet_most, *(double *)mean, busy, busy_most);
    keyring_free(keyring);
    return 0;
}
