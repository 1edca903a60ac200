/*
 * load: puts load on a running steep, or on PostgreSQL alone, and prints the
 * result as a JSON object. See USAGE. Each connection has a thread. The
 * measurement starts when all batches are made and signed, and each connection
 * has had one answer.
 */
#include "client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: load keys SOURCES\n"
    "       load post   [-c CONNECTIONS] [-n BATCHES] [-e EVENTS] [-b BYTES] [-s SOURCES]\n"
    "                   [-r RATE]\n"
    "       load insert (as post)\n"
    "       load get    [-c CONNECTIONS] [-n REQUESTS] [-t SECONDS] PATH\n"
    "       load call   [-c CONNECTIONS] [-n REQUESTS] [-t SECONDS] DAYS [SOURCE]\n"
    "keys prints the name and the public key of each source. post sends signed\n"
    "batches to STEEP_URL; insert calls bulk_insert_events with them, in the\n"
    "database of the PG* environment. get requests PATH of STEEP_URL; call calls\n"
    "get_hourly_aggregates. -n is the number of requests per connection, without\n"
    "the first one, which is not measured. -t ends queries earlier. -r sends that\n"
    "many batches a second over all connections, each at its time, from which its\n"
    "latency is measured; without it, a connection sends when it has its answer.\n";

struct options {
    int connections;
    int requests;
    int events;
    int event_bytes;
    int sources;
    int rate;       /* requests per second; 0: as fast as they are answered */
    double seconds; /* 0: no limit */
    struct work query;
};

/* A thread's connection, its requests, and their results. */
struct user {
    pthread_t thread;
    int number; /* from 0 */
    pthread_barrier_t *barrier;
    const struct client *client;
    const struct options *options;
    struct body *bodies; /* requests + 1; NULL for queries */
    int64_t *latencies;  /* of the successful requests */
    int answered;
    int errors;
    long long acknowledged;
    struct answer last;
    int64_t end;
};

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The processor time of this process, which shares the processors with the programs. */
static double used_ms(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
}

static _Noreturn void fail(const char *sentence)
{
    fprintf(stderr, "load: %s\n", sentence);
    exit(EXIT_FAILURE);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        fail("out of memory");
    return memory;
}

static bool send_request(struct user *user, void *connection, int number)
{
    struct work work = user->options->query;
    struct answer answer = {0};

    if (user->bodies != NULL)
        work.body = &user->bodies[number];
    if (!user->client->send(connection, &work, &answer)) {
        user->errors++;
        return false;
    }
    user->acknowledged += answer.inserted;
    user->last = answer;
    return true;
}

static void sleep_until(int64_t time_ns)
{
    const struct timespec until = {time_ns / 1000000000, time_ns % 1000000000};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/*
 * Waits until a request is due, and returns the time from which its latency counts. At a
 * rate that is when it is due, even if the connection still waited for its last answer
 * then: a server that stops for a second has delayed all that were due in it.
 */
static int64_t await_turn(const struct user *user, int64_t begin, int request)
{
    const struct options *options = user->options;
    int64_t position = (int64_t)(request - 1) * options->connections + user->number;
    int64_t due;

    if (options->rate == 0)
        return now_ns();
    due = begin + position * 1000000000 / options->rate;
    sleep_until(due);
    return due;
}

static void send_requests(struct user *user, void *connection)
{
    const struct options *options = user->options;
    int64_t begin = now_ns();

    for (int i = 1; i <= options->requests; i++) {
        int64_t start = await_turn(user, begin, i);

        /* At least two requests, for a meaningful median. */
        if (options->seconds > 0 && user->answered >= 2 &&
            (double)(start - begin) > options->seconds * 1e9)
            break;
        if (send_request(user, connection, i))
            user->latencies[user->answered++] = now_ns() - start;
    }
    user->end = now_ns();
}

static void *use(void *argument)
{
    struct user *user = argument;
    void *connection = user->client->open();

    if (connection == NULL)
        fail("cannot connect");
    send_request(user, connection, 0);
    pthread_barrier_wait(user->barrier);
    send_requests(user, connection);
    user->client->close(connection);
    return NULL;
}

static int compare(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

static double percentile_ms(const int64_t *sorted, size_t count, double part)
{
    size_t position = (size_t)(part * (double)count);

    if (count == 0)
        return 0;
    return (double)sorted[position < count ? position : count - 1] / 1e6;
}

static void print_result(const struct options *options, const struct user *users, int64_t begin,
                         double client_ms)
{
    size_t count = 0;
    int64_t end = begin;
    int64_t *all = allocate((size_t)options->connections * (size_t)options->requests, sizeof(*all));
    long long acknowledged = 0;
    int errors = 0;
    double seconds;

    for (int i = 0; i < options->connections; i++) {
        const struct user *user = &users[i];

        memcpy(all + count, user->latencies, (size_t)user->answered * sizeof(*all));
        count += (size_t)user->answered;
        errors += user->errors;
        acknowledged += user->acknowledged;
        if (user->end > end)
            end = user->end;
    }
    qsort(all, count, sizeof(*all), compare);
    seconds = (double)(end - begin) / 1e9;
    printf("{\"requests_per_second\": %.2f, \"events_per_second\": %.0f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f, \"errors\": %d, \"requests\": %zu, \"acknowledged\": %lld, "
           "\"rows\": %lld, \"bytes\": %zu, \"client_ms\": %.1f}\n",
           (double)count / seconds, (double)count * options->events / seconds,
           percentile_ms(all, count, 0.5), percentile_ms(all, count, 0.99), errors,
           count + (size_t)options->connections, acknowledged, users[0].last.rows,
           users[0].last.bytes, client_ms);
    free(all);
}

static void make_bodies(struct user *user, int number)
{
    const struct options *options = user->options;

    user->bodies = allocate((size_t)options->requests + 1, sizeof(*user->bodies));
    for (int i = 0; i <= options->requests; i++)
        bodies_make(&user->bodies[i], number % options->sources, options->events,
                    (size_t)options->event_bytes);
}

static void free_user(struct user *user)
{
    for (int i = 0; user->bodies != NULL && i <= user->options->requests; i++)
        free(user->bodies[i].text);
    free(user->bodies);
    free(user->latencies);
}

static void run(const struct client *client, const struct options *options, bool is_batch)
{
    struct user *users = allocate((size_t)options->connections, sizeof(*users));
    pthread_barrier_t barrier;
    int64_t begin;
    double used_before;

    pthread_barrier_init(&barrier, NULL, (unsigned)options->connections + 1);
    for (int i = 0; i < options->connections; i++) {
        users[i] =
            (struct user){.number = i, .barrier = &barrier, .client = client, .options = options};
        users[i].latencies = allocate((size_t)options->requests, sizeof(int64_t));
        if (is_batch)
            make_bodies(&users[i], i);
    }
    for (int i = 0; i < options->connections; i++) {
        if (pthread_create(&users[i].thread, NULL, use, &users[i]) != 0)
            fail("cannot create a thread");
    }
    pthread_barrier_wait(&barrier);
    begin = now_ns();
    used_before = used_ms();
    for (int i = 0; i < options->connections; i++)
        pthread_join(users[i].thread, NULL);
    print_result(options, users, begin, used_ms() - used_before);

    for (int i = 0; i < options->connections; i++)
        free_user(&users[i]);
    pthread_barrier_destroy(&barrier);
    free(users);
}

static void print_keys(int sources)
{
    char source[BODIES_SOURCE_BYTES], key[BODIES_KEY_BYTES];

    for (int i = 0; i < sources; i++) {
        bodies_source(i, source, key);
        printf("%s %s\n", source, key);
    }
}

static _Noreturn void misused(void)
{
    fputs(USAGE, stderr);
    exit(2);
}

static int positive(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*end != '\0' || value < 1 || value > 10000000)
        misused();
    return (int)value;
}

static void read_options(struct options *options, int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "c:n:e:b:s:r:t:")) != -1) {
        switch (option) {
        case 'c':
            options->connections = positive(optarg);
            break;
        case 'n':
            options->requests = positive(optarg);
            break;
        case 'e':
            options->events = positive(optarg);
            break;
        case 'b':
            options->event_bytes = positive(optarg);
            break;
        case 's':
            options->sources = positive(optarg);
            break;
        case 'r':
            options->rate = positive(optarg);
            break;
        case 't':
            options->seconds = strtod(optarg, NULL);
            break;
        default:
            misused();
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = {1, 100, 1000, 270, 1, 0, 0, {0}};
    const char *verb = argc > 1 ? argv[1] : "";
    int rest;

    if (argc < 2 || sodium_init() < 0)
        misused();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    read_options(&options, argc - 1, argv + 1);
    argv += 1 + optind;
    rest = argc - 1 - optind;

    if (strcmp(verb, "keys") == 0 && rest == 1) {
        print_keys(positive(argv[0]));
    } else if (strcmp(verb, "post") == 0 && rest == 0) {
        run(&CLIENT_HTTPS, &options, true);
    } else if (strcmp(verb, "insert") == 0 && rest == 0) {
        run(&CLIENT_DATABASE, &options, true);
    } else if (strcmp(verb, "get") == 0 && rest == 1) {
        options.query.path = argv[0];
        run(&CLIENT_HTTPS, &options, false);
    } else if (strcmp(verb, "call") == 0 && (rest == 1 || rest == 2)) {
        options.query.days = argv[0];
        options.query.source = rest == 2 ? argv[1] : NULL;
        run(&CLIENT_DATABASE, &options, false);
    } else {
        misused();
    }
    curl_global_cleanup();
    return EXIT_SUCCESS;
}
