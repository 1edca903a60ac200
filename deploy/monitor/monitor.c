/*
 * steep-monitor: main and the main thread, which reads the input, writes the
 * spool and handles signals. See steep-monitor(1), and README.md beside this.
 */
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "files.h"
#include "intake.h"
#include "keys.h"
#include "options.h"
#include "rejected.h"
#include "sender.h"
#include "status.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COMMIT_MS = 1000, RETRY_MS = 1000, DRAIN_MS = 500 };

struct monitor {
    struct options options;
    struct keys keys;
    struct spool spool;
    struct intake intake;
    struct sender sender;
    int signals;
    bool is_reading;   /* neither the input has ended nor a signal stopped it */
    int64_t commit_at; /* not before this, unless there is no room in memory */
    int64_t read_at;   /* when to read a followed file, or input that was paused; or 0 */
};

/* Opens the state folder, and locks it for the life of the process. */
static bool lock_folder(const struct monitor *monitor)
{
    const char *why = NULL;
    int folder = files_open_path(monitor->options.state);
    struct log_line line;

    if (folder < 0 || faccessat(folder, ".", W_OK, 0) != 0)
        why = strerror(errno);
    else if (!status_lock(folder))
        why = errno == EAGAIN || errno == EACCES
                  ? "another steep-monitor is using this state folder"
              : errno == ENOLCK || errno == EINVAL || errno == EOPNOTSUPP
                  ? "its file system has no locks, which the spool needs; choose another folder"
                  : strerror(errno);
    if (folder >= 0)
        close(folder);
    if (why == NULL)
        return true;
    log_begin(&line, LOG_ERROR, "state");
    log_string(&line, "folder", monitor->options.state);
    log_string(&line, "detail", why);
    log_end(&line);
    return false;
}

/* Logs what is wrong with the file of a setting. */
static bool refuse_file(const char *name, const char *path, const char *why)
{
    struct log_line line;

    log_begin(&line, LOG_ERROR, "configuration");
    log_string(&line, "variable", name);
    log_string(&line, "file", path);
    log_string(&line, "detail", why);
    log_end(&line);
    return false;
}

/* Checks the URL, the key and the CA file; -t does this alone. */
static bool check(struct monitor *monitor)
{
    const struct options *options = &monitor->options;
    const char *problem;

    if (options->url[0] == '\0') {
        config_refuse("STEEP_URL", "is required: the server's address, https://HOST");
        return false;
    }
    problem = keys_read(&monitor->keys, options->key);
    if (problem != NULL)
        return refuse_file("STEEP_KEY", options->key, problem);
    if (options->ca_file != NULL)
        problem = post_check_ca(options->ca_file);
    if (problem != NULL)
        return refuse_file("STEEP_CA", options->ca_file, problem);
    return true;
}

/* Signals are read from a descriptor; writing to a closed pipe fails with EPIPE. */
static bool catch_signals(struct monitor *monitor)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    monitor->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return monitor->signals >= 0;
}

static bool start_sender(struct monitor *monitor)
{
    const struct options *options = &monitor->options;

    monitor->sender = (struct sender){
        .spool = &monitor->spool,
        .keys = &monitor->keys,
        .max_events = options->batch_events,
        .interval_ms = options->interval_ms,
        .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .post = post_new(options->url, options->ca_file),
    };
    if (monitor->sender.wake < 0 || monitor->sender.post == NULL ||
        !sender_start(&monitor->sender)) {
        log_event(LOG_ERROR, "sender", "cannot start the sender");
        return false;
    }
    return true;
}

/* Opens everything, cheap checks first. */
static bool start(struct monitor *monitor)
{
    const struct options *options = &monitor->options;
    struct log_line line;

    /* The command "rejected retry" signals the process that has the lock. */
    if (!check(monitor) || !catch_signals(monitor) || !lock_folder(monitor))
        return false;
    monitor->intake = (struct intake){
        .completer = completer_new(options->source),
        .spool = &monitor->spool,
        .quiet_ms = options->quiet_ms,
    };
    if (monitor->intake.completer == NULL ||
        !spool_open(&monitor->spool, options->state, options->source, options->spool_bytes,
                    options->is_blocking) ||
        !intake_open(&monitor->intake, options->operand) || !start_sender(monitor))
        return false;
    monitor->commit_at = clock_ms();
    monitor->is_reading = true;
    if (input_descriptor(intake_input(&monitor->intake)) < 0)
        monitor->read_at = clock_ms();
    log_begin(&line, LOG_INFO, "started");
    log_string(&line, "version", STEEP_VERSION);
    log_string(&line, "url", options->url);
    log_string(&line, "source", options->source);
    log_number(&line, "pending", (long long)spool_waiting(&monitor->spool));
    log_end(&line);
    return true;
}

/* Reads what is left in a pipe: its writers may have ended and can't write it again. */
static void drain_input(struct monitor *monitor)
{
    struct pollfd input = {.fd = input_descriptor(intake_input(&monitor->intake)),
                           .events = POLLIN};
    const int64_t until = clock_ms() + DRAIN_MS;
    enum intake_step step = INTAKE_MORE;

    monitor->intake.is_ending = true;
    while (input.fd >= 0 && step != INTAKE_END && step != INTAKE_PAUSED && clock_ms() < until) {
        step = poll(&input, 1, 0) <= 0 ? INTAKE_END : intake_run(&monitor->intake, true);
        input.fd = input_descriptor(intake_input(&monitor->intake));
    }
    intake_end(&monitor->intake, step == INTAKE_END);
}

static void stop(struct monitor *monitor)
{
    log_event(LOG_INFO, "stopping", "sending pending events for up to 5 s");
    /* First, or the sender may find nothing pending and end. */
    if (monitor->is_reading)
        drain_input(monitor);
    monitor->is_reading = false;
    sender_stop(&monitor->sender);
}

static void handle_signals(struct monitor *monitor)
{
    struct signalfd_siginfo signal;

    while (read(monitor->signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
        if (signal.ssi_signo != SIGUSR1) {
            stop(monitor);
            continue;
        }
        if (!intake_commit(&monitor->intake) && monitor->is_reading)
            monitor->read_at = clock_ms() + RETRY_MS;
        sender_flush(&monitor->sender, true);
    }
}

static void read_input(struct monitor *monitor, bool is_readable)
{
    const bool is_polled = input_descriptor(intake_input(&monitor->intake)) >= 0;

    monitor->read_at = 0;
    switch (intake_run(&monitor->intake, is_readable)) {
    case INTAKE_MORE:
        if (!is_polled)
            monitor->read_at = clock_ms();
        break;
    case INTAKE_NOTHING:
        if (!is_polled)
            monitor->read_at = clock_ms() + INPUT_CHECK_MS;
        break;
    case INTAKE_PAUSED:
        /* Sending makes room. */
        sender_flush(&monitor->sender, false);
        monitor->read_at = clock_ms() + RETRY_MS;
        break;
    case INTAKE_END:
        log_event(LOG_INFO, "stopping", "end of input, sending pending events");
        monitor->is_reading = false;
        monitor->intake.is_ending = true;
        intake_end(&monitor->intake, true);
        sender_finish(&monitor->sender);
        break;
    }
}

/* At most once a second, and at once if the last commit is longer ago. */
static void commit_input(struct monitor *monitor)
{
    const int64_t now = clock_ms();

    if (!monitor->intake.is_changed || monitor->intake.is_paused || now < monitor->commit_at)
        return;
    if (!intake_commit(&monitor->intake) && monitor->is_reading) {
        sender_flush(&monitor->sender, false);
        monitor->read_at = now + RETRY_MS;
    }
    monitor->commit_at = now + COMMIT_MS;
}

/* The timeout for poll: until something is due; -1 for none. */
static int poll_timeout(const struct monitor *monitor)
{
    int64_t at = monitor->intake.is_changed && !monitor->intake.is_paused ? monitor->commit_at : 0;

    if (monitor->is_reading && monitor->read_at != 0 && (at == 0 || monitor->read_at < at))
        at = monitor->read_at;
    return at == 0 ? -1 : clock_left(at);
}

static void run(struct monitor *monitor)
{
    struct pollfd polled[] = {
        {.fd = monitor->signals, .events = POLLIN},
        {.fd = monitor->sender.wake, .events = POLLIN},
        {.fd = -1, .events = POLLIN},
    };
    uint64_t ignored;

    while (!sender_has_ended(&monitor->sender)) {
        bool is_woken, is_readable, is_time;

        polled[2].fd = monitor->is_reading && monitor->read_at == 0
                           ? input_descriptor(intake_input(&monitor->intake))
                           : -1;
        if (poll(polled, sizeof(polled) / sizeof(polled[0]), poll_timeout(monitor)) < 0)
            continue;
        is_woken = read(monitor->sender.wake, &ignored, sizeof(ignored)) > 0;
        is_readable = polled[2].fd >= 0 && polled[2].revents != 0;
        is_time = monitor->read_at != 0 &&
                  (clock_ms() >= monitor->read_at || (is_woken && monitor->intake.is_paused));
        if ((polled[0].revents & POLLIN) != 0)
            handle_signals(monitor);
        if (monitor->is_reading && (is_readable || is_time))
            read_input(monitor, is_readable);
        commit_input(monitor);
    }
}

static void end(struct monitor *monitor)
{
    struct log_line line;
    uint64_t pending;

    sender_join(&monitor->sender);
    pending = spool_waiting(&monitor->spool);
    log_begin(&line, LOG_INFO, "stopped");
    log_number(&line, "pending", (long long)pending);
    if (pending > 0)
        log_string(&line, "detail", "pending events are sent after the next start");
    log_end(&line);
    post_free(monitor->sender.post);
    intake_close(&monitor->intake);
    spool_close(&monitor->spool);
    free(monitor->intake.completer);
    keys_wipe(&monitor->keys);
}

/* A core file would contain the private key. */
static void disable_core(void)
{
    static const struct rlimit NONE = {0, 0};

    /* The unit's system call filter may refuse this, but has LimitCORE=0. */
    (void)setrlimit(RLIMIT_CORE, &NONE);
}

/* keygen; without DIR, in the folder of STEEP_KEY. */
static int generate_key(struct options *options)
{
    char *slash = strrchr(options->key, '/');

    if (options->operand != NULL)
        return keys_generate(options->operand, options->source);
    if (slash == NULL)
        return keys_generate(".", options->source);
    slash[slash == options->key] = '\0';
    return keys_generate(options->key, options->source);
}

int main(int argc, char **argv)
{
    static struct monitor monitor;
    int status;
    enum options_command command;

    log_open();
    command = options_read(&monitor.options, argc, argv, &status);
    umask(077);
    disable_core();
    if (command == OPTIONS_EXIT)
        return status;
    if (sodium_init() < 0 || !post_init()) {
        log_event(LOG_ERROR, "start", "cannot initialize libsodium or libcurl");
        return EXIT_FAILURE;
    }
    switch (command) {
    case OPTIONS_KEYGEN:
        return generate_key(&monitor.options);
    case OPTIONS_STATUS:
        return status_print(monitor.options.state);
    case OPTIONS_REJECTED:
        return rejected_command(&monitor.options);
    case OPTIONS_TEST:
        status = check(&monitor) ? EXIT_SUCCESS : EXIT_FAILURE;
        keys_wipe(&monitor.keys);
        return status;
    default:
        break;
    }
    if (!start(&monitor)) {
        keys_wipe(&monitor.keys);
        return EXIT_FAILURE;
    }
    run(&monitor);
    end(&monitor);
    return EXIT_SUCCESS;
}
