#include "process/notify.h"

#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* A path, or a name in the abstract namespace that begins with an @. */
static bool fill_address(struct sockaddr_un *address, socklen_t *size, const char *name)
{
    size_t length = strlen(name);

    if ((*name != '/' && *name != '@') || length < 2 || length >= sizeof(address->sun_path))
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, name, length);
    if (*name == '@')
        address->sun_path[0] = '\0';
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    return true;
}

/* A manager that does not read must not keep us from its signals. */
static const struct timeval SEND_TIMEOUT = {.tv_sec = 1};

void notify_send(const char *state)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    socklen_t size;
    bool is_sent = false;
    int fd;

    if (name == NULL || *name == '\0')
        return;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && fill_address(&address, &size, name) &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &SEND_TIMEOUT, sizeof(SEND_TIMEOUT)) == 0)
        is_sent =
            sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) >= 0;
    if (!is_sent)
        log_event(LOG_WARNING, "notify", "can't write to NOTIFY_SOCKET");
    if (fd >= 0)
        close(fd);
}

int notify_watchdog_ms(void)
{
    const char *pid = getenv("WATCHDOG_PID");
    const char *text = getenv("WATCHDOG_USEC");
    char *end;
    unsigned long long us;

    if (text == NULL || *text < '0' || *text > '9')
        return 0;
    if (pid != NULL && strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    errno = 0;
    us = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || us == 0)
        return 0;
    us = us / 1000 / 2;
    return us == 0 ? 1 : us > INT_MAX ? INT_MAX : (int)us;
}
