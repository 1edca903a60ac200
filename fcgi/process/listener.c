#include "process/listener.h"

#include "base/log.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_PASSED_FD = 3 };

/* The descriptor with this name in a colon-separated list; -1 unless exactly one has it. */
static int find_named(const char *names, const char *name)
{
    int found = -1;

    for (int fd = FIRST_PASSED_FD;; fd++) {
        size_t length = strcspn(names, ":");

        if (length == strlen(name) && memcmp(names, name, length) == 0) {
            if (found >= 0)
                return -1;
            found = fd;
        }
        if (names[length] == '\0')
            return found;
        names += length + 1;
    }
}

/* The number of sockets passed to this process, and not to its parent; NULL for none. */
static const char *passed_count(void)
{
    const char *pid = getenv("LISTEN_PID");

    return pid != NULL && strtol(pid, NULL, 10) == (long)getpid() ? getenv("LISTEN_FDS") : NULL;
}

static bool choose_passed(struct listeners *listeners, const char *count)
{
    const char *names = getenv("LISTEN_FDNAMES");

    if (strcmp(count, "1") == 0 && (names == NULL || strcmp(names, "health") != 0)) {
        listeners->requests = FIRST_PASSED_FD;
        return true;
    }
    if (strcmp(count, "2") == 0 && names != NULL) {
        listeners->requests = find_named(names, "requests");
        listeners->health = find_named(names, "health");
        /* With more names than sockets, a name may stand for none. */
        return listeners->requests >= 0 && listeners->health >= 0 &&
               listeners->requests + listeners->health == 2 * FIRST_PASSED_FD + 1;
    }
    return false;
}

static bool is_listening(int fd)
{
    int listens = 0;
    socklen_t size = sizeof(listens);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

/* Threads race for a connection: those that lose must not block in accept. */
static bool set_nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0;
}

/*
 * For TCP; connections inherit it. Otherwise the last small record of an answer waits until
 * nginx has confirmed the others, which takes the kernel 40 ms. Fails for a Unix socket.
 */
static void set_nodelay(int fd)
{
    const int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

bool listeners_take(struct listeners *listeners)
{
    const char *count = passed_count();

    *listeners = (struct listeners){.requests = STDIN_FILENO, .health = -1};
    if (count != NULL && !choose_passed(listeners, count)) {
        log_event(LOG_ERROR, "listener",
                  "LISTEN_FDS must pass one socket, or two that LISTEN_FDNAMES calls requests and "
                  "health");
        return false;
    }
    if (!is_listening(listeners->requests)) {
        log_event(LOG_ERROR, "listener",
                  "no listening socket was passed, neither by LISTEN_FDS nor as standard input");
        return false;
    }
    if (listeners->health >= 0 && !is_listening(listeners->health)) {
        log_event(LOG_ERROR, "listener", "the socket passed as health does not listen");
        return false;
    }
    if (!set_nonblocking(listeners->requests) ||
        (listeners->health >= 0 && !set_nonblocking(listeners->health))) {
        log_event(LOG_ERROR, "listener", "can't make a listening socket non-blocking");
        return false;
    }
    set_nodelay(listeners->requests);
    if (listeners->health >= 0)
        set_nodelay(listeners->health);
    return true;
}
