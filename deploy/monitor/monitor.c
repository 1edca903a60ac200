/*
 * steep-monitor: takes events from standard input or a file, keeps them in a
 * spool, and sends them in signed batches until each is acknowledged. See
 * steep-monitor(1).
 */
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "files.h"
#include "intake.h"
#include "keys.h"
#include "options.h"
#include "sender.h"

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

enum { SYNC_MS = 1000, RETRY_MS = 1000, DRAIN_MS = 500 };

struct monitor {
    struct options options;
    struct keys keys;
    struct input input;
    struct spool spool;
    struct rejected rejected;
    struct status status;
    struct intake intake;
    struct sender sender;
    int state; /* the folder */
    int signals;
    bool is_reading;         /* the input has not ended, and nothing asks for the end */
    uint64_t dropped_before; /* by earlier processes */
    uint64_t rejected_noted; /* what status was told last */
    uint64_t dropped_noted;
    int64_t sync_at; /* when what was written is to be on the disk, or 0 */
    int64_t read_at; /* when input that isn't polled, or has to wait, is looked at; or 0 */
};

/* Opens the state folder, and locks it for as long as this process lives. */
static bool lock_state(struct monitor *monitor)
{
    const char *why = NULL;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct log_line line;
    int lock = -1;

    monitor->state = files_open_path(monitor->options.state);
    if (monitor->state >= 0)
        lock = openat(monitor->state, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        why = strerror(errno);
    else if (fcntl(lock, F_OFD_SETLK, &whole) != 0)
        why = errno == EAGAIN || errno == EACCES
                  ? "another steep-monitor is running on this state folder"
                  : strerror(errno);
    if (why == NULL)
        return true;
    log_begin(&line, LOG_ERROR, "state");
    log_string(&line, "folder", monitor->options.state);
    log_string(&line, "detail", why);
    log_end(&line);
    return false;
}

/* Says in the log why a file that a variable names can't be taken. */
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

/* What -t checks as well: the address, the key and the authorities. */
static bool check(struct monitor *monitor)
{
    const struct options *options = &monitor->options;
    const char *objection;

    if (options->url[0] == '\0') {
        config_refuse("STEEP_URL", "it is needed: the server's address, https://HOST");
        return false;
    }
    objection = keys_read(&monitor->keys, options->key);
    if (objection != NULL)
        return refuse_file("STEEP_KEY", options->key, objection);
    if (options->authorities != NULL)
        objection = post_check_authorities(options->authorities);
    if (objection != NULL)
        return refuse_file("STEEP_CA", options->authorities, objection);
    return true;
}

/* Signals are read from a descriptor; writing to a closed pipe is an error like others. */
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
        .rejected = &monitor->rejected,
        .status = &monitor->status,
        .keys = &monitor->keys,
        .most = options->batch_events,
        .interval_ms = options->interval_ms,
        .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .post = post_new(options->url, options->source, options->authorities),
    };
    if (monitor->sender.wake < 0 || monitor->sender.post == NULL ||
        !sender_start(&monitor->sender)) {
        log_event(LOG_ERROR, "sender", "the sender can't be started");
        return false;
    }
    return true;
}

/* Opens all there is, in the order in which a failure leaves the least behind. */
static bool start(struct monitor *monitor)
{
    const struct options *options = &monitor->options;
    struct log_line line;
    int folder;

    if (!check(monitor) || !lock_state(monitor))
        return false;
    folder = files_open_folder(monitor->state, "spool");
    if (folder < 0) {
        log_event(LOG_ERROR, "spool_error", strerror(errno));
        return false;
    }
    status_init(&monitor->status, monitor->state);
    rejected_init(&monitor->rejected, monitor->state, monitor->status.set_aside);
    monitor->dropped_before = monitor->status.dropped;
    monitor->rejected_noted = monitor->status.set_aside;
    monitor->intake = (struct intake){
        .input = &monitor->input,
        .completer = completer_new(options->source),
        .spool = &monitor->spool,
        .rejected = &monitor->rejected,
    };
    if (monitor->intake.completer == NULL || !catch_signals(monitor) ||
        !spool_open(&monitor->spool, folder, options->spool_bytes, options->is_blocking) ||
        !input_open(&monitor->input, options->operand, &monitor->spool.position) ||
        !start_sender(monitor))
        return false;
    monitor->is_reading = true;
    if (input_descriptor(&monitor->input) < 0)
        monitor->read_at = clock_ms();
    log_begin(&line, LOG_INFO, "serving");
    log_string(&line, "version", STEEP_VERSION);
    log_string(&line, "url", options->url);
    log_string(&line, "source", options->source);
    log_number(&line, "waiting", (long long)spool_waiting(&monitor->spool));
    log_end(&line);
    return true;
}

/* What a pipe holds already belongs to those that wrote it, who may have ended as well. */
static void drain_input(struct monitor *monitor)
{
    struct pollfd input = {.fd = input_descriptor(&monitor->input), .events = POLLIN};
    const int64_t until = clock_ms() + DRAIN_MS;
    bool is_drained = false;

    while (input.fd >= 0 && !is_drained && clock_ms() < until) {
        if (poll(&input, 1, 0) <= 0)
            is_drained = true;
        else if (intake_run(&monitor->intake, true) != INTAKE_MORE)
            break;
        input.fd = input_descriptor(&monitor->input);
    }
    intake_end(&monitor->intake, is_drained);
}

static void begin_stop(struct monitor *monitor)
{
    log_event(LOG_INFO, "stopping", "sending what waits, for up to 5 s");
    /* Before the sender finds that nothing waits. */
    if (monitor->is_reading)
        drain_input(monitor);
    monitor->is_reading = false;
    sender_stop(&monitor->sender);
}

static void take_signals(struct monitor *monitor)
{
    struct signalfd_siginfo signal;

    while (read(monitor->signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
        if (signal.ssi_signo == SIGUSR1)
            sender_flush(&monitor->sender, true);
        else
            begin_stop(monitor);
    }
}

static void take_input(struct monitor *monitor, bool is_readable)
{
    const bool is_polled = input_descriptor(&monitor->input) >= 0;

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
    case INTAKE_STUCK:
        /* What was sent makes room. */
        sender_flush(&monitor->sender, false);
        monitor->read_at = clock_ms() + RETRY_MS;
        break;
    case INTAKE_END:
        log_event(LOG_INFO, "stopping", "the input has ended; sending what waits");
        monitor->is_reading = false;
        sender_finish(&monitor->sender);
        break;
    }
}

static void note_counts(struct monitor *monitor)
{
    monitor->rejected_noted = rejected_count(&monitor->rejected);
    monitor->dropped_noted = spool_dropped(&monitor->spool);
    status_count(&monitor->status, monitor->rejected_noted,
                 monitor->dropped_before + monitor->dropped_noted);
}

/* Whether there is something to bring to the disk, or a figure that is new. */
static bool has_news(struct monitor *monitor)
{
    return spool_is_dirty(&monitor->spool) || rejected_is_dirty(&monitor->rejected) ||
           rejected_count(&monitor->rejected) != monitor->rejected_noted ||
           spool_dropped(&monitor->spool) != monitor->dropped_noted;
}

/* What is done at most once a second: the disk, and the figures. */
static void keep_up(struct monitor *monitor)
{
    int64_t now = clock_ms();

    if (monitor->sync_at == 0 && has_news(monitor))
        monitor->sync_at = now + SYNC_MS;
    if (monitor->sync_at == 0 || now < monitor->sync_at)
        return;
    monitor->sync_at = 0;
    /* Before the position that lies behind them. */
    rejected_sync(&monitor->rejected);
    (void)spool_sync(&monitor->spool);
    note_counts(monitor);
}

/* How long nothing is to be done but for what the descriptors say; -1: for ever. */
static int idle_ms(const struct monitor *monitor)
{
    int64_t at = monitor->sync_at;

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

    while (!sender_is_ended(&monitor->sender)) {
        bool is_woken, is_readable, is_time;

        polled[2].fd =
            monitor->is_reading && monitor->read_at == 0 ? input_descriptor(&monitor->input) : -1;
        if (poll(polled, sizeof(polled) / sizeof(polled[0]), idle_ms(monitor)) < 0)
            continue;
        is_woken = read(monitor->sender.wake, &ignored, sizeof(ignored)) > 0;
        is_readable = polled[2].fd >= 0 && polled[2].revents != 0;
        is_time = monitor->read_at != 0 &&
                  (clock_ms() >= monitor->read_at || (is_woken && monitor->intake.is_stuck));
        if ((polled[0].revents & POLLIN) != 0)
            take_signals(monitor);
        if (monitor->is_reading && (is_readable || is_time))
            take_input(monitor, is_readable);
        keep_up(monitor);
    }
}

static void end(struct monitor *monitor)
{
    struct log_line line;

    sender_join(&monitor->sender);
    (void)spool_sync(&monitor->spool);
    rejected_sync(&monitor->rejected);
    note_counts(monitor);
    log_begin(&line, LOG_INFO, "stopped");
    log_number(&line, "waiting", (long long)spool_waiting(&monitor->spool));
    log_end(&line);
    post_free(monitor->sender.post);
    input_close(&monitor->input);
    spool_close(&monitor->spool);
    rejected_free(&monitor->rejected);
    status_free(&monitor->status);
    free(monitor->intake.completer);
    keys_wipe(&monitor->keys);
}

/* An image of the process in a file would have the private key in it. */
static void forbid_core(void)
{
    static const struct rlimit NONE = {0, 0};

    /* systemd's filter may refuse this, and its unit has LimitCORE=0. */
    (void)setrlimit(RLIMIT_CORE, &NONE);
}

/* keygen without a folder: that of the key. */
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
    forbid_core();
    if (command == OPTIONS_EXIT)
        return status;
    if (sodium_init() < 0 || !post_init()) {
        log_event(LOG_ERROR, "start", "the libraries can't be used");
        return EXIT_FAILURE;
    }
    switch (command) {
    case OPTIONS_KEYGEN:
        return generate_key(&monitor.options);
    case OPTIONS_STATUS:
        return status_print(monitor.options.state);
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
