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
    struct state state;
    struct intake intake;
    struct sender sender;
    int folder; /* the state folder */
    int signals;
    bool is_reading;         /* neither the input has ended nor a signal stopped it */
    uint64_t dropped_before; /* by earlier processes */
    uint64_t saved_rejected; /* the totals in the state file */
    uint64_t saved_dropped;
    int64_t sync_at; /* when to sync what was written, or 0 */
    int64_t read_at; /* when to read a followed file, or input that was paused; or 0 */
};

/* Opens the state folder, and locks it for the life of the process. */
static bool lock_folder(struct monitor *monitor)
{
    const char *why = NULL;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct log_line line;
    int lock = -1;

    monitor->folder = files_open_path(monitor->options.state);
    if (monitor->folder >= 0)
        lock = openat(monitor->folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        why = strerror(errno);
    else if (fcntl(lock, F_OFD_SETLK, &whole) != 0)
        why = errno == EAGAIN || errno == EACCES
                  ? "another steep-monitor is using this state folder"
                  : strerror(errno);
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
        .rejected = &monitor->rejected,
        .state = &monitor->state,
        .keys = &monitor->keys,
        .max_events = options->batch_events,
        .interval_ms = options->interval_ms,
        .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .post = post_new(options->url, options->source, options->ca_file),
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
    int folder;

    if (!check(monitor) || !lock_folder(monitor))
        return false;
    folder = files_open_folder(monitor->folder, "spool");
    if (folder < 0) {
        log_event(LOG_ERROR, "spool_error", strerror(errno));
        return false;
    }
    state_init(&monitor->state, monitor->folder);
    rejected_init(&monitor->rejected, monitor->folder, monitor->state.rejected);
    monitor->dropped_before = monitor->state.dropped;
    monitor->saved_rejected = monitor->state.rejected;
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
        if (signal.ssi_signo == SIGUSR1)
            sender_flush(&monitor->sender, true);
        else
            stop(monitor);
    }
}

static void read_input(struct monitor *monitor, bool is_readable)
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
    case INTAKE_PAUSED:
        /* Sending makes room. */
        sender_flush(&monitor->sender, false);
        monitor->read_at = clock_ms() + RETRY_MS;
        break;
    case INTAKE_END:
        log_event(LOG_INFO, "stopping", "end of input, sending pending events");
        monitor->is_reading = false;
        sender_finish(&monitor->sender);
        break;
    }
}

static void save_totals(struct monitor *monitor)
{
    monitor->saved_rejected = rejected_count(&monitor->rejected);
    monitor->saved_dropped = spool_dropped(&monitor->spool);
    state_set_totals(&monitor->state, monitor->saved_rejected,
                     monitor->dropped_before + monitor->saved_dropped);
}

/* Whether there is something to sync, or the totals changed. */
static bool has_unsaved(struct monitor *monitor)
{
    return spool_is_dirty(&monitor->spool) || rejected_is_dirty(&monitor->rejected) ||
           rejected_count(&monitor->rejected) != monitor->saved_rejected ||
           spool_dropped(&monitor->spool) != monitor->saved_dropped;
}

/* At most once a second: syncs the files and saves the totals. */
static void sync_and_save(struct monitor *monitor)
{
    int64_t now = clock_ms();

    if (monitor->sync_at == 0 && has_unsaved(monitor))
        monitor->sync_at = now + SYNC_MS;
    if (monitor->sync_at == 0 || now < monitor->sync_at)
        return;
    monitor->sync_at = 0;
    /* Before the spool records that their lines were read. */
    rejected_sync(&monitor->rejected);
    (void)spool_sync(&monitor->spool);
    save_totals(monitor);
}

/* The timeout for poll: until something is due; -1 for none. */
static int poll_timeout(const struct monitor *monitor)
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

    while (!sender_has_ended(&monitor->sender)) {
        bool is_woken, is_readable, is_time;

        polled[2].fd =
            monitor->is_reading && monitor->read_at == 0 ? input_descriptor(&monitor->input) : -1;
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
        sync_and_save(monitor);
    }
}

static void end(struct monitor *monitor)
{
    struct log_line line;
    uint64_t pending;

    sender_join(&monitor->sender);
    pending = spool_waiting(&monitor->spool);
    (void)spool_sync(&monitor->spool);
    rejected_sync(&monitor->rejected);
    save_totals(monitor);
    log_begin(&line, LOG_INFO, "stopped");
    log_number(&line, "pending", (long long)pending);
    if (pending > 0)
        log_string(&line, "detail", "pending events are sent after the next start");
    log_end(&line);
    post_free(monitor->sender.post);
    input_close(&monitor->input);
    spool_close(&monitor->spool);
    rejected_free(&monitor->rejected);
    state_free(&monitor->state);
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
        return state_print(monitor.options.state);
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
