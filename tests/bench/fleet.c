/*
 * fleet: many monitors in one process, each with a key, a source and a kept TLS connection
 * of its own. It obeys commands on standard input, each of which is answered by a JSON
 * object on standard output, and sends batches meanwhile. See USAGE, and the script fleet,
 * which starts it.
 */
#include "bodies.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: fleet MONITORS INTERVAL EVENTS PORT\n"
    "Each monitor posts a batch of so many events every INTERVAL seconds, 20 % more or\n"
    "less, to https://localhost:PORT, whose authority is STEEP_CA. Commands:\n"
    "measure SECONDS  the requests of that time; the first one starts the monitors\n"
    "storm            all monitors send now; the requests until each has been acknowledged\n"
    "end              sends what is not acknowledged, and no more; ends\n";

enum {
    /* Of one address: an office, see nginx/snippets/rate-limits.conf. */
    OFFICE_MONITORS = 1000,
    EVENT_BYTES = 270,
    TIMEOUT_MS = 30000, /* of a monitor's attempt */
    SCAN_MS = 20,
    HEAD_BYTES = 512, /* of a request */
    ANSWER_BYTES = 2048,
    MOST_EVENTS = 512,
    MOST_LATENCIES = 1000000,
};

enum stage { CLOSED, HANDSHAKE, SENDING, RECEIVING, IDLE };

struct monitor {
    enum stage stage;
    int number;
    int fd;
    SSL *ssl;
    SSL_SESSION *session;
    char *request; /* not acknowledged yet, NULL if there is none */
    size_t length;
    int64_t due;     /* of the next attempt, in ms like all times */
    int64_t begun;   /* the first attempt of this batch */
    int64_t attempt; /* this attempt */
    size_t received;
    bool is_awaited; /* by storm */
    char answer[ANSWER_BYTES + 1];
};

static struct {
    int64_t begin;
    int64_t until; /* 0: when nobody is awaited any more */
    int latencies[MOST_LATENCIES];
    int batches, full, resumed, closed_idle, limited, unavailable, other, failed;
    long long bytes; /* all_bytes at the beginning */
} count;

static struct monitor *monitors;
static int monitor_count, interval_ms, events, port, epoll, awaited;
static long long acknowledged, repeated; /* events; those that were stored already */
static long long closed_bytes;           /* of TLS, in both directions, of connections that ended */
static bool is_measuring, is_ending;
static SSL_CTX *tls;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "fleet: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(EXIT_FAILURE);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t up_to(int64_t ms)
{
    return (int64_t)randombytes_uniform((uint32_t)ms + 1);
}

static void make_request(struct monitor *monitor)
{
    struct body body;
    int head;

    bodies_make(&body, monitor->number, events, EVENT_BYTES);
    monitor->request = malloc(HEAD_BYTES + body.length);
    if (monitor->request == NULL)
        fail("malloc");
    head = sprintf(monitor->request,
                   "POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                   "X-Source-ID: %s\r\nX-Signature: %s\r\nContent-Length: %zu\r\n\r\n",
                   body.source, body.signature, body.length);
    memcpy(monitor->request + head, body.text, body.length);
    monitor->length = (size_t)head + body.length;
    free(body.text);
}

/* Of a connection's TLS, in both directions. */
static long long bytes_of(const struct monitor *monitor)
{
    return (long long)BIO_number_read(SSL_get_rbio(monitor->ssl)) +
           (long long)BIO_number_written(SSL_get_wbio(monitor->ssl));
}

static long long all_bytes(void)
{
    long long sum = closed_bytes;

    for (int i = 0; i < monitor_count; i++) {
        if (monitors[i].ssl != NULL)
            sum += bytes_of(&monitors[i]);
    }
    return sum;
}

static void disconnect(struct monitor *monitor)
{
    closed_bytes += bytes_of(monitor);
    /* Else OpenSSL would not use the session again. */
    SSL_set_shutdown(monitor->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(monitor->ssl);
    close(monitor->fd);
    monitor->ssl = NULL;
    monitor->stage = CLOSED;
    ERR_clear_error();
}

static void try_again(struct monitor *monitor, int seconds)
{
    monitor->due = now_ms() + seconds * 1000LL + up_to(1000);
}

static void on_failure(struct monitor *monitor)
{
    if (monitor->stage == IDLE) {
        count.closed_idle++;
    } else {
        count.failed++;
        try_again(monitor, 1);
    }
    disconnect(monitor);
}

static void record_latency(int64_t latency)
{
    if (count.batches < MOST_LATENCIES)
        count.latencies[count.batches++] = (int)latency;
}

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

static int number_after(const char *text, const char *member)
{
    const char *at = strcasestr(text, member);

    return at == NULL ? 0 : number(at + strlen(member));
}

static void on_acknowledged(struct monitor *monitor)
{
    int inserted = number_after(monitor->answer, "\"inserted\":");
    int duplicates = number_after(monitor->answer, "\"duplicates\":");

    if (inserted + duplicates != events) {
        fprintf(stderr, "fleet: unexpected answer: %s\n", monitor->answer);
        exit(EXIT_FAILURE);
    }
    acknowledged += events;
    repeated += duplicates;
    record_latency(now_ms() - monitor->begun);
    free(monitor->request);
    monitor->request = NULL;
    monitor->due = now_ms() + interval_ms * 4LL / 5 + up_to(interval_ms * 2LL / 5);
    awaited -= monitor->is_awaited;
    monitor->is_awaited = false;
}

/* When the answer is complete. */
static void on_answer(struct monitor *monitor)
{
    int status = number_after(monitor->answer, "HTTP/1.1 ");

    monitor->stage = IDLE;
    if (status == 200) {
        on_acknowledged(monitor);
    } else {
        try_again(monitor, number_after(monitor->answer, "\r\nRetry-After: "));
        *(status == 429 ? &count.limited : status == 503 ? &count.unavailable : &count.other) += 1;
    }
    if (strcasestr(monitor->answer, "\r\nConnection: close") != NULL)
        disconnect(monitor);
}

/* The connection has failed, or it waits for the peer. */
static void check_failure(struct monitor *monitor, int result)
{
    int error = SSL_get_error(monitor->ssl, result);

    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        on_failure(monitor);
}

static void receive(struct monitor *monitor)
{
    while (monitor->stage == RECEIVING || monitor->stage == IDLE) {
        int got = SSL_read(monitor->ssl, monitor->answer + monitor->received,
                           (int)(ANSWER_BYTES - monitor->received));
        const char *end;

        if (got <= 0) {
            check_failure(monitor, got);
            return;
        }
        monitor->received += (size_t)got;
        monitor->answer[monitor->received] = '\0';
        end = strstr(monitor->answer, "\r\n\r\n");
        if (monitor->stage == RECEIVING && end != NULL &&
            monitor->received >= (size_t)(end + 4 - monitor->answer) +
                                     (size_t)number_after(monitor->answer, "\r\nContent-Length: "))
            on_answer(monitor);
    }
}

/* Continues after an event of its connection, as far as possible. */
static void advance(struct monitor *monitor)
{
    int result;

    if (monitor->stage == HANDSHAKE) {
        result = SSL_connect(monitor->ssl);
        if (result <= 0) {
            check_failure(monitor, result);
            return;
        }
        *(SSL_session_reused(monitor->ssl) ? &count.resumed : &count.full) += 1;
        monitor->stage = SENDING;
    }
    if (monitor->stage == SENDING) {
        result = SSL_write(monitor->ssl, monitor->request, (int)monitor->length);
        if (result <= 0) {
            check_failure(monitor, result);
            return;
        }
        monitor->received = 0;
        monitor->stage = RECEIVING;
    }
    if (monitor->stage == RECEIVING || monitor->stage == IDLE)
        receive(monitor);
}

static void open_connection(struct monitor *monitor)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = monitor}};
    const int on = 1;

    from.sin_addr.s_addr = htonl(0x7f010001U + (uint32_t)(monitor->number / OFFICE_MONITORS));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)port);
    monitor->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (monitor->fd < 0)
        fail("socket");
    setsockopt(monitor->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    setsockopt(monitor->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (bind(monitor->fd, (struct sockaddr *)&from, sizeof(from)) != 0)
        fail("bind");
    monitor->ssl = SSL_new(tls);
    if (monitor->ssl == NULL || SSL_set_fd(monitor->ssl, monitor->fd) != 1 ||
        SSL_set_tlsext_host_name(monitor->ssl, "localhost") != 1 ||
        SSL_set1_host(monitor->ssl, "localhost") != 1)
        fail("OpenSSL");
    SSL_set_app_data(monitor->ssl, monitor);
    if (monitor->session != NULL)
        SSL_set_session(monitor->ssl, monitor->session);
    SSL_set_connect_state(monitor->ssl);
    monitor->stage = HANDSHAKE;
    if (connect(monitor->fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS)
        on_failure(monitor);
    else if (epoll_ctl(epoll, EPOLL_CTL_ADD, monitor->fd, &event) != 0)
        fail("epoll_ctl");
}

/* Keeps the session for the next connection: in TLS 1.3 it comes after the handshake. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct monitor *monitor = SSL_get_app_data(ssl);

    SSL_SESSION_free(monitor->session);
    monitor->session = session;
    return 1;
}

static void start(struct monitor *monitor, int64_t now)
{
    if (monitor->request == NULL) {
        make_request(monitor);
        monitor->begun = now;
    }
    monitor->attempt = now;
    if (monitor->stage == CLOSED) {
        open_connection(monitor);
    } else {
        monitor->stage = SENDING;
        advance(monitor);
    }
}

/* Starts what is due, and gives up what takes too long. */
static void scan(int64_t now)
{
    for (int i = 0; i < monitor_count; i++) {
        struct monitor *monitor = &monitors[i];
        bool is_free = monitor->stage == CLOSED || monitor->stage == IDLE;

        if (is_free && now >= monitor->due && (monitor->request != NULL || !is_ending))
            start(monitor, now);
        else if (!is_free && now > monitor->attempt + TIMEOUT_MS)
            on_failure(monitor);
    }
}

static int compare(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

static int percentile(int percent)
{
    return count.batches == 0 ? 0 : count.latencies[(count.batches - 1) * percent / 100];
}

static void report(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    qsort(count.latencies, (size_t)count.batches, sizeof(int), compare);
    printf("{\"ms\": %lld, \"batches\": %d, \"p50_ms\": %d, \"p99_ms\": %d, \"max_ms\": %d, "
           "\"full_handshakes\": %d, \"resumptions\": %d, \"closed_idle\": %d, "
           "\"answers_429\": %d, \"answers_503\": %d, \"other_answers\": %d, "
           "\"failed_attempts\": %d, \"acknowledged\": %lld, \"repeated\": %lld, "
           "\"bytes\": %lld, \"client_ms\": %lld}\n",
           (long long)(now_ms() - count.begin), count.batches, percentile(50), percentile(99),
           percentile(100), count.full, count.resumed, count.closed_idle, count.limited,
           count.unavailable, count.other, count.failed, acknowledged, repeated,
           all_bytes() - count.bytes, (long long)used.tv_sec * 1000 + used.tv_nsec / 1000000);
    fflush(stdout);
    is_measuring = false;
}

static void obey(void)
{
    char line[64];
    int64_t now = now_ms();
    ssize_t length = read(STDIN_FILENO, line, sizeof(line) - 1);

    line[length > 0 ? length : 0] = '\0';
    count.batches = count.full = count.resumed = count.closed_idle = 0;
    count.limited = count.unavailable = count.other = count.failed = 0;
    count.bytes = all_bytes();
    count.begin = now;
    is_measuring = true;
    if (strncmp(line, "measure ", 8) == 0) {
        count.until = now + (int64_t)(strtod(line + 8, NULL) * 1000);
        for (int i = 0; i < monitor_count; i++) {
            if (monitors[i].due == INT64_MAX)
                monitors[i].due = now + up_to(interval_ms);
        }
    } else if (strcmp(line, "storm\n") == 0) {
        for (int i = 0; i < monitor_count; i++) {
            monitors[i].due = now;
            monitors[i].is_awaited = true;
        }
        count.until = 0;
        awaited = monitor_count;
    } else { /* and where the parent has ended */
        is_ending = true;
        count.until = 0;
        awaited = 0;
        for (int i = 0; i < monitor_count; i++)
            awaited += monitors[i].is_awaited = monitors[i].request != NULL;
    }
}

static void set_up(void)
{
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};

    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        fail("epoll");
    tls = SSL_CTX_new(TLS_client_method());
    if (tls == NULL || SSL_CTX_load_verify_locations(tls, getenv("STEEP_CA"), NULL) != 1)
        fail("STEEP_CA");
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(tls, keep_session);
    monitors = calloc((size_t)monitor_count, sizeof(*monitors));
    if (monitors == NULL)
        fail("calloc");
    for (int i = 0; i < monitor_count; i++) {
        monitors[i].number = i;
        monitors[i].due = INT64_MAX;
    }
}

int main(int argc, char **argv)
{
    static struct epoll_event ready[MOST_EVENTS];
    int64_t scanned = 0;

    if (argc != 5 || sodium_init() < 0) {
        fputs(USAGE, stderr);
        return 2;
    }
    monitor_count = number(argv[1]);
    interval_ms = (int)(strtod(argv[2], NULL) * 1000);
    events = number(argv[3]);
    port = number(argv[4]);
    signal(SIGPIPE, SIG_IGN);
    set_up();
    while (!is_ending || is_measuring) {
        int ready_count = epoll_wait(epoll, ready, MOST_EVENTS, SCAN_MS);

        for (int i = 0; i < ready_count; i++) {
            struct monitor *monitor = ready[i].data.ptr;

            if (monitor == NULL)
                obey();
            else if (monitor->stage != CLOSED)
                advance(monitor);
        }
        if (now_ms() - scanned >= SCAN_MS) {
            scanned = now_ms();
            scan(scanned);
        }
        if (is_measuring && (count.until > 0 ? now_ms() >= count.until : awaited == 0))
            report();
    }
    return EXIT_SUCCESS;
}
