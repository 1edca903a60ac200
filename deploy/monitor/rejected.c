#include "rejected.h"

#include "base/log.h"
#include "base/utf8.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char NAME[] = "rejected.ndjson";
static const char OLDER[] = "rejected.1.ndjson";

enum { ESCAPED_BYTES = 6, FRAME_BYTES = 2048 };

void rejected_init(struct rejected *rejected, int folder, uint64_t count)
{
    *rejected = (struct rejected){.folder = folder, .file = -1, .count = count};
    pthread_mutex_init(&rejected->lock, NULL);
}

void rejected_free(struct rejected *rejected)
{
    if (rejected->file >= 0)
        close(rejected->file);
    pthread_mutex_destroy(&rejected->lock);
}

/* The length of the UTF-8 character at text; 0 if it is invalid. */
static size_t character(const char *text, size_t left)
{
    for (size_t length = 1; length <= 4 && length <= left; length++) {
        if (utf8_valid((const unsigned char *)text, length))
            return length;
    }
    return 0;
}

/* Writes a JSON string (RFC 8259, section 7); invalid UTF-8 becomes U+FFFD. */
static size_t quote(char *out, const char *text, size_t length)
{
    size_t n = 0;

    out[n++] = '"';
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        size_t bytes = character(text + i, length - i);

        if (bytes == 0) {
            n += (size_t)sprintf(out + n, "\\ufffd");
            bytes = 1;
        } else if (c < 0x20) {
            n += (size_t)sprintf(out + n, "\\u%04x", c);
        } else {
            if (c == '"' || c == '\\')
                out[n++] = '\\';
            memcpy(out + n, text + i, bytes);
            n += bytes;
        }
        i += bytes;
    }
    out[n++] = '"';
    return n;
}

/* Writes a line with its newline; returns its length. */
static size_t format(char *out, const struct rejected_item *item)
{
    char reason[512];
    size_t n;

    snprintf(reason, sizeof(reason), "%s: %s%s", item->code, item->message,
             item->is_truncated ? " (line truncated)" : "");
    n = (size_t)sprintf(out, "{\"reason\":");
    n += quote(out + n, reason, strlen(reason));
    if (item->line > 0)
        n += (size_t)sprintf(out + n, ",\"line\":%" PRIu64 ",\"event\":", item->line);
    else
        n += (size_t)sprintf(out + n, ",\"line\":null,\"event\":");
    if (item->line > 0) {
        n += quote(out + n, item->text, item->length);
    } else {
        memcpy(out + n, item->text, item->length);
        n += item->length;
    }
    return n + (size_t)sprintf(out + n, "}\n");
}

/* Removes an incomplete line, left by a kill or a power failure; its event is rejected again. */
static bool remove_incomplete(int file)
{
    struct stat status;
    char bytes[4096];
    off_t end;

    if (fstat(file, &status) != 0)
        return false;
    for (end = status.st_size; end > 0;) {
        off_t from = end > (off_t)sizeof(bytes) ? end - (off_t)sizeof(bytes) : 0;
        ssize_t n = pread(file, bytes, (size_t)(end - from), from);
        const char *newline = n == end - from ? memrchr(bytes, '\n', (size_t)n) : NULL;

        if (n != end - from)
            return false;
        if (newline != NULL) {
            end = from + (newline - bytes) + 1;
            break;
        }
        end = from;
    }
    if (end == status.st_size)
        return true;
    log_event(LOG_WARNING, "rejected_recovered",
              "removed an incomplete line at the end of rejected.ndjson");
    return ftruncate(file, end) == 0;
}

/* Opens the current file. */
static bool open_newest(struct rejected *rejected)
{
    rejected->file = openat(rejected->folder, NAME, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (rejected->file >= 0 && remove_incomplete(rejected->file) && fsync(rejected->folder) == 0)
        return true;
    if (rejected->file >= 0)
        close(rejected->file);
    rejected->file = -1;
    return false;
}

/* Opens a file that has room for length more bytes; *size is its size before them. */
static bool open_file(struct rejected *rejected, size_t length, off_t *size)
{
    struct stat status;

    if (rejected->file < 0 && !open_newest(rejected))
        return false;
    if (fstat(rejected->file, &status) != 0)
        return false;
    if (status.st_size == 0 || status.st_size + (off_t)length <= REJECTED_FILE_BYTES) {
        *size = status.st_size;
        return true;
    }
    if (fdatasync(rejected->file) != 0 ||
        renameat(rejected->folder, NAME, rejected->folder, OLDER) != 0)
        return false;
    log_event(LOG_WARNING, "rejected_rotated",
              "rejected.ndjson is full, renamed to rejected.1.ndjson");
    close(rejected->file);
    if (!open_newest(rejected))
        return false;
    *size = 0;
    return true;
}

bool rejected_add(struct rejected *rejected, const struct rejected_item *item)
{
    char *line = malloc(item->length * ESCAPED_BYTES + FRAME_BYTES * 2);
    bool is_added = false;
    off_t size = -1;
    int error = ENOMEM;

    if (line != NULL) {
        const size_t length = format(line, item);

        pthread_mutex_lock(&rejected->lock);
        is_added =
            open_file(rejected, length, &size) && files_write(rejected->file, line, length, -1);
        error = errno;
        if (is_added) {
            rejected->count++;
            rejected->is_dirty = true;
        } else if (size >= 0 && ftruncate(rejected->file, size) != 0) {
            error = errno; /* an incomplete line is left */
        }
        pthread_mutex_unlock(&rejected->lock);
        free(line);
    }
    if (!is_added) {
        errno = error;
        log_event(LOG_ERROR, "rejected_error", strerror(error));
    }
    return is_added;
}

void rejected_sync(struct rejected *rejected)
{
    pthread_mutex_lock(&rejected->lock);
    if (rejected->is_dirty && rejected->file >= 0 && fdatasync(rejected->file) != 0)
        log_event(LOG_ERROR, "rejected_error", strerror(errno));
    rejected->is_dirty = false;
    pthread_mutex_unlock(&rejected->lock);
}

bool rejected_is_dirty(struct rejected *rejected)
{
    bool is_dirty;

    pthread_mutex_lock(&rejected->lock);
    is_dirty = rejected->is_dirty;
    pthread_mutex_unlock(&rejected->lock);
    return is_dirty;
}

uint64_t rejected_count(struct rejected *rejected)
{
    uint64_t count;

    pthread_mutex_lock(&rejected->lock);
    count = rejected->count;
    pthread_mutex_unlock(&rejected->lock);
    return count;
}
