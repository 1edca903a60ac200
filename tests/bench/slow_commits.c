/*
 * A disk whose commits are slow: preloaded into PostgreSQL (LD_PRELOAD), it adds 5 ms to
 * each fdatasync, by which PostgreSQL writes its log to the disk (wal_sync_method, whose
 * default is fdatasync on Linux).
 */
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DELAY_NS = 5000000 };

int fdatasync(int file) /* NOLINT(readability-inconsistent-declaration-parameter-name) */
{
    struct timespec left = {0, DELAY_NS};
    int status;

    /* PostgreSQL's processes wake each other by signals. */
    do
        status = nanosleep(&left, &left);
    while (status != 0 && errno == EINTR);
    return (int)syscall(SYS_fdatasync, file);
}
