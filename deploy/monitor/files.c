#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

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
