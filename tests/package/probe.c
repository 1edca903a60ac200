/*
 * What a program that was taken over would try. Prints a line for each attempt: its name, and
 * "ok" or the error. tests/package runs it in the sandbox of a service, and outside.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef POSTGRESQL
#define POSTGRESQL "15" // the major version of PostgreSQL
#endif

static void tell(const char *attempt, const char *what, bool succeeded)
{
    printf("%s %s %s\n", attempt, what, succeeded ? "ok" : strerrorname_np(errno));
}

static void try_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    tell("read", path, fd >= 0);
    if (fd >= 0)
        close(fd);
}

static void try_create(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    tell("create", path, fd >= 0);
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
}

static void try_address(const char *name, const struct sockaddr *address, socklen_t size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* A packet that systemd filters is gone without an error. */
    const struct timeval limit = {.tv_sec = 3};

    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    tell("connect", name, fd >= 0 && connect(fd, address, size) == 0);
    if (fd >= 0)
        close(fd);
}

static void try_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(5432)};
    struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_port = htons(5432)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address6.sin6_addr = in6addr_loopback;
    try_address("127.0.0.1:5432", (struct sockaddr *)&address, sizeof(address));
    try_address("[::1]:5432", (struct sockaddr *)&address6, sizeof(address6));
}

static void try_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    try_address(path, (struct sockaddr *)&address, sizeof(address));
}

static void try_execute(const char *path)
{
    int status = 1;
    pid_t child = fork();

    if (child == 0) {
        execl(path, path, "-c", "exit 0", (char *)NULL);
        _exit(errno);
    }
    if (child > 0)
        waitpid(child, &status, 0);
    errno = WEXITSTATUS(status);
    tell("execute", path, child > 0 && status == 0);
}

static void try_privileges(void)
{
    void *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    tell("map", "writable-and-executable", page != MAP_FAILED);
    tell("become", "root", setuid(0) == 0);
    tell("unshare", "a-user-namespace", unshare(CLONE_NEWUSER) == 0);
    tell("mount", "/nonexistent", mount("none", "/nonexistent", "tmpfs", 0, NULL) == 0);
    tell("trace", "itself", ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    try_read("/etc/passwd");
    try_read("/etc/steep/query.env");
    try_read("/etc/steep/tls/server.key");
    try_read("/proc/1/environ");
    try_read("/var/lib/postgresql/" POSTGRESQL "/main/PG_VERSION");
    try_create("/probe");
    try_create("/tmp/probe");
    try_create("/var/tmp/probe");
    try_create("/dev/shm/probe");
    try_create("/run/probe");
    try_create("/run/postgresql/probe");
    try_create("/usr/lib/steep/probe.new");
    try_tcp();
    try_unix("/run/postgresql/.s.PGSQL.5432");
    try_unix("/run/dbus/system_bus_socket");
    try_unix("/run/steep/query.sock");
    try_execute("/bin/sh");
    try_privileges();
    return 0;
}
