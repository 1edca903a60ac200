#include "follow.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FOLDER_BYTES = 4096,
    STEP_MS = 10, /* resolution of file times, with HZ of 100 */
};

static const int64_t NO_RANK = INT64_MAX;
static const int64_t NANOSECONDS = 1000000000;
static const int64_t MILLISECOND = 1000000;

uint64_t follow_check(const void *bytes, size_t length)
{
    static const unsigned char KEY[crypto_shorthash_KEYBYTES] = "steep-monitor 1";
    uint64_t hash;

    _Static_assert(sizeof(hash) == crypto_shorthash_BYTES, "SipHash-2-4 has 64 bits");
    crypto_shorthash((unsigned char *)&hash, bytes, length, KEY);
    return le64toh(hash);
}

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

    return length >= 0 && follow_check(tail, (size_t)length) == position->tail;
}

/* follow_birth, in nanoseconds. */
static int64_t birth(int file, int64_t unknown)
{
    struct statx status;

    if (statx(file, "", AT_EMPTY_PATH, STATX_BTIME, &status) != 0 ||
        (status.stx_mask & STATX_BTIME) == 0)
        return unknown;
    return status.stx_btime.tv_sec * NANOSECONDS + status.stx_btime.tv_nsec;
}

int64_t follow_birth(int file, int64_t unknown)
{
    int64_t born = birth(file, NO_RANK);

    return born == NO_RANK ? unknown : born / MILLISECOND;
}

bool follow_is_file(int file, const struct position *position)
{
    struct stat status;

    return fstat(file, &status) == 0 && S_ISREG(status.st_mode) &&
           status.st_dev == position->device && status.st_ino == position->inode &&
           birth(file, 0) / MILLISECOND <= position->seen_ms && follow_matches(file, position);
}

/* What to look for in the folder of a path. */
struct search {
    const struct position *position; /* its file or a copy of it; NULL: a successor */
    int64_t after;                   /* when the predecessor was created, in nanoseconds */
    int64_t seen_ms;                 /* when it was last seen at the path */
    uint64_t device, inode;          /* of a file to exclude */
};

/* The rank of a file, lowest is best; NO_RANK if it doesn't match. */
static int64_t rank(const struct search *search, int file, const char *suffix)
{
    struct stat status;
    int64_t born;
    bool is_itself, is_excluded;

    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
        return NO_RANK;
    is_itself = search->position != NULL && follow_is_file(file, search->position);
    is_excluded = status.st_dev == search->device && status.st_ino == search->inode;
    /* At offset 0 every file would match as a copy. */
    if (search->position != NULL && search->position->offset == 0)
        return is_itself && !is_excluded ? 0 : NO_RANK;
    if (is_itself)
        return 0;
    if (is_excluded)
        return NO_RANK;
    if (search->position != NULL) {
        born = birth(file, (int64_t)status.st_mtim.tv_sec * NANOSECONDS);
        return born / MILLISECOND >= search->position->seen_ms - STEP_MS &&
                       follow_matches(file, search->position)
                   ? born
                   : NO_RANK;
    }
    /* Rotated files end in a number or a date. */
    born = birth(file, NO_RANK);
    return *suffix != '\0' && suffix[strspn(suffix, ".-_0123456789")] == '\0' &&
                   born > search->after && born / MILLISECOND >= search->seen_ms - STEP_MS &&
                   status.st_size > 0
               ? born
               : NO_RANK;
}

/* Opens the file with the best rank whose name begins with the path's; -1 if there is none. */
static int find(const char *path, const struct search *search)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash == NULL ? path : slash + 1;
    char folder[FOLDER_BYTES] = ".";
    int64_t lowest = NO_RANK;
    DIR *directory;
    struct dirent *entry;
    int found = -1;

    if ((size_t)(base - path) >= sizeof(folder))
        return -1;
    if (slash != NULL) {
        memcpy(folder, path, (size_t)(base - path));
        folder[base - path] = '\0';
    }
    directory = opendir(folder);
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        int64_t found_rank;
        int file;

        if (strncmp(entry->d_name, base, strlen(base)) != 0)
            continue;
        file =
            openat(dirfd(directory), entry->d_name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (file < 0)
            continue;
        found_rank = rank(search, file, entry->d_name + strlen(base));
        if (found_rank < lowest) {
            int worse = found;

            found = file;
            file = worse;
            lowest = found_rank;
        }
        if (file >= 0)
            close(file);
    }
    if (directory != NULL)
        closedir(directory);
    return found;
}

int follow_find(const char *path, const struct position *position, uint64_t device, uint64_t inode)
{
    const struct search search = {.position = position, .device = device, .inode = inode};

    return find(path, &search);
}

int follow_next(const char *path, int file, int64_t seen_ms, int newest)
{
    struct search search = {.after = birth(file, NO_RANK), .seen_ms = seen_ms};
    struct stat status;
    int found;

    if (fstat(newest, &status) != 0)
        return -1;
    search.device = status.st_dev;
    search.inode = status.st_ino;
    found = find(path, &search);
    /* It is newer than "newest" if files were rotated during the search. */
    if (found >= 0 && birth(found, NO_RANK) > birth(newest, NO_RANK)) {
        close(found);
        found = -1;
    }
    return found;
}
