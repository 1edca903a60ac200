/*
 * Kills the program that it is preloaded into in the middle of a write to a file: the write
 * number KILL_AT, counted from 1, to the file whose name ends with KILL_FILE. Half of it is
 * written.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_wanted(int file)
{
    const char *wanted = getenv("KILL_FILE");
    char link[64], path[4096];
    ssize_t length;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof(path));
    return length >= (ssize_t)strlen(wanted) &&
           memcmp(path + length - strlen(wanted), wanted, strlen(wanted)) == 0;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset)
{
    static long count;
    ssize_t (*next)(int, const void *, size_t, off64_t) =
        (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");

    if (is_wanted(file) && ++count == atol(getenv("KILL_AT"))) {
        (void)!next(file, bytes, length / 2, offset);
        kill(getpid(), SIGKILL);
    }
    return next(file, bytes, length, offset);
}
