#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 256, PATH_BYTES = 4096 };

bool files_write(int file, const void *bytes, size_t length, off_t offset)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t n = offset < 0 ? write(file, at, length) : pwrite(file, at, length, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
        if (offset >= 0)
            offset += n;
    }
    return true;
}

bool files_replace(int folder, const char *name, const void *bytes, size_t length, bool is_durable)
{
    char temporary[NAME_BYTES];
    int file, error;
    bool is_written;

    snprintf(temporary, sizeof(temporary), "%s.new", name);
    file = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    is_written = files_write(file, bytes, length, -1) && (!is_durable || fdatasync(file) == 0);
    error = errno;
    if (close(file) != 0 && is_written) {
        error = errno;
        is_written = false;
    }
    if (is_written && renameat(folder, temporary, folder, name) == 0)
        return !is_durable || fsync(folder) == 0;
    if (is_written)
        error = errno;
    unlinkat(folder, temporary, 0);
    errno = error;
    return false;
}

ssize_t files_read(int folder, const char *name, char *text, size_t size)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t n;
    int error;

    if (file < 0)
        return -1;
    do {
        n = read(file, text + length, size - length);
        if (n > 0)
            length += (size_t)n;
    } while ((n > 0 && length < size) || (n < 0 && errno == EINTR));
    error = n < 0 ? errno : EFBIG;
    close(file);
    if (n < 0 || length == size) {
        errno = error;
        return -1;
    }
    text[length] = '\0';
    return (ssize_t)length;
}

bool files_number(const char *text, const char *name, uint64_t *number)
{
    const size_t length = strlen(name);

    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        char *end;

        line += *line == '\n';
        if (strncmp(line, name, length) != 0 || line[length] != '=' || line[length + 1] < '0' ||
            line[length + 1] > '9')
            continue;
        errno = 0;
        *number = strtoull(line + length + 1, &end, 10);
        return *end == '\n' && errno == 0;
    }
    return false;
}

int files_open_folder(int parent, const char *name)
{
    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST && errno != EROFS)
        return -1;
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int files_open_path(const char *path)
{
    char part[PATH_BYTES];

    if (strlen(path) >= sizeof(part)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        memcpy(part, path, (size_t)(slash - path));
        part[slash - path] = '\0';
        /* Errors show when the last folder is opened. */
        (void)mkdir(part, 0700);
    }
    return files_open_folder(AT_FDCWD, path);
}
