#include "follow.h"

#include "record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int follow_tail(int file, uint64_t offset, char tail[static POSITION_TAIL_BYTES])
{
    size_t length = offset < POSITION_TAIL_BYTES ? (size_t)offset : POSITION_TAIL_BYTES;
    ssize_t n = pread(file, tail, length, (off_t)(offset - length));

    if (n >= 0 && (size_t)n != length) {
        errno = EIO;
        return -1;
    }
    return (int)n;
}

bool follow_matches(int file, const struct position *position)
{
    char tail[POSITION_TAIL_BYTES];
    int length = follow_tail(file, position->offset, tail);

    return length >= 0 && record_check(tail, (size_t)length) == position->tail;
}

/* Opens a regular file that isn't the one given and matches; -1 otherwise. */
static int open_match(int folder, const char *name, const struct position *position,
                      uint64_t device, uint64_t inode, bool *is_renamed)
{
    struct stat status;
    int file = openat(folder, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (file < 0)
        return -1;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) ||
        (status.st_dev == device && status.st_ino == inode) || !follow_matches(file, position)) {
        close(file);
        return -1;
    }
    *is_renamed = status.st_dev == position->device && status.st_ino == position->inode;
    return file;
}

int follow_find(const char *path, const struct position *position, uint64_t device, uint64_t inode)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash == NULL ? path : slash + 1;
    char folder[4096] = ".";
    DIR *directory;
    struct dirent *entry;
    int found = -1;
    bool is_renamed = false;

    /* Before the first byte, every file would do. */
    if (position->offset == 0 || (size_t)(base - path) >= sizeof(folder))
        return -1;
    if (slash != NULL) {
        memcpy(folder, path, (size_t)(base - path));
        folder[base - path] = '\0';
    }
    directory = opendir(folder);
    if (directory == NULL)
        return -1;
    while (!is_renamed && (entry = readdir(directory)) != NULL) {
        int file;

        if (strncmp(entry->d_name, base, strlen(base)) != 0)
            continue;
        file = open_match(dirfd(directory), entry->d_name, position, device, inode, &is_renamed);
        if (file < 0)
            continue;
        /* The file itself is better than a copy of it. */
        if (found >= 0)
            close(found);
        found = file;
    }
    closedir(directory);
    return found;
}
