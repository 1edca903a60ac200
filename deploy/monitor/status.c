#include "status.h"

#include "base/log.h"
#include "files.h"
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char NAME[] = "status";

enum { FILE_BYTES = 1024, STAMP_BYTES = 32 };

static void read_file(struct status *status, int folder)
{
    char text[FILE_BYTES];
    uint64_t code, time;
    const char *detail;

    status->last_status = -1;
    if (files_read(folder, NAME, text, sizeof(text)) < 0)
        return;
    (void)!files_number(text, "set_aside", &status->set_aside);
    (void)!files_number(text, "dropped", &status->dropped);
    if (!files_number(text, "last_status", &code) || !files_number(text, "last_time", &time))
        return;
    status->last_status = (int)code;
    status->last_time = (int64_t)time;
    detail = strstr(text, "\nlast_detail=");
    if (detail != NULL)
        snprintf(status->last_detail, sizeof(status->last_detail), "%.*s",
                 (int)strcspn(detail + strlen("\nlast_detail="), "\n"),
                 detail + strlen("\nlast_detail="));
}

void status_init(struct status *status, int folder)
{
    *status = (struct status){.folder = folder};
    pthread_mutex_init(&status->lock, NULL);
    read_file(status, folder);
}

void status_free(struct status *status)
{
    pthread_mutex_destroy(&status->lock);
}

/* Under the lock. */
static void write_file(struct status *status)
{
    char text[FILE_BYTES];
    int length = snprintf(text, sizeof(text),
                          "set_aside=%" PRIu64 "\ndropped=%" PRIu64
                          "\nlast_status=%d\nlast_time=%" PRId64 "\nlast_detail=%s\n",
                          status->set_aside, status->dropped, status->last_status,
                          status->last_time, status->last_detail);

    /* It is for information: a full disk shows in other ways. */
    (void)!files_replace(status->folder, NAME, text, (size_t)length, false);
}

void status_answer(struct status *status, int code, const char *detail)
{
    pthread_mutex_lock(&status->lock);
    status->last_status = code;
    status->last_time = time(NULL);
    snprintf(status->last_detail, sizeof(status->last_detail), "%s", detail);
    for (char *c = status->last_detail; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
            *c = '?';
    }
    write_file(status);
    pthread_mutex_unlock(&status->lock);
}

void status_count(struct status *status, uint64_t set_aside, uint64_t dropped)
{
    pthread_mutex_lock(&status->lock);
    if (status->set_aside != set_aside || status->dropped != dropped) {
        status->set_aside = set_aside;
        status->dropped = dropped;
        write_file(status);
    }
    pthread_mutex_unlock(&status->lock);
}

/* When the oldest event that waits was accepted; 0 where it can't be read. */
static int64_t oldest_ms(const struct recovery *recovery, int folder)
{
    struct segment_reader reader;
    struct record record;
    int64_t found = 0;

    if (!segment_reader_init(&reader, folder))
        return 0;
    for (size_t i = 0; i < recovery->count && found == 0; i++) {
        const struct spool_segment *segment = &recovery->segments[i];
        const struct spool_place *place = &recovery->cursor.place;
        enum segment_step step = SEGMENT_FAILED;

        if (segment->number < place->segment)
            continue;
        if (!segment_seek(&reader, segment->number,
                          segment->number == place->segment ? place->offset : SEGMENT_HEADER_BYTES))
            break;
        do {
            step = segment_next(&reader, segment->bytes, &record);
            if (step == SEGMENT_RECORD && (record.flags & RECORD_EVENT) != 0)
                found = record.time_ms;
        } while (found == 0 && (step == SEGMENT_RECORD || step == SEGMENT_DAMAGED));
    }
    segment_reader_free(&reader);
    return found;
}

/* Whether a process has the lock of this state. */
static bool is_running(int folder)
{
    struct flock found = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int lock = openat(folder, "lock", O_RDONLY | O_CLOEXEC);
    bool is_held;

    if (lock < 0)
        return false;
    /* Only a look: to take it would refuse a process that starts now. */
    is_held = fcntl(lock, F_OFD_GETLK, &found) == 0 && found.l_type != F_UNLCK;
    close(lock);
    return is_held;
}

static void print_all(const struct status *status, const struct recovery *recovery, int spool)
{
    uint64_t waiting = recovery->next_serial - recovery->cursor.place.serial;
    char stamp[STAMP_BYTES] = "never";
    time_t when = (time_t)status->last_time;
    struct tm tm;

    printf("running: %s\n", is_running(status->folder) ? "yes" : "no");
    printf("waiting: %" PRIu64 "\n", waiting);
    if (waiting > 0) {
        int64_t age = (int64_t)time(NULL) - oldest_ms(recovery, spool) / 1000;

        printf("oldest: %" PRId64 " s\n", age < 0 ? 0 : age);
    }
    printf("set aside: %" PRIu64 "\n", status->set_aside);
    printf("dropped: %" PRIu64 "\n", status->dropped);
    printf("sent: %" PRIu64 "\n", recovery->cursor.sent);
    if (status->last_status >= 0 && gmtime_r(&when, &tm) != NULL)
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (status->last_status < 0)
        printf("last answer: never\n");
    else
        printf("last answer: %d at %s%s%s\n", status->last_status, stamp,
               *status->last_detail == '\0' ? "" : ": ", status->last_detail);
}

int status_print(const char *state)
{
    struct status status = {0};
    struct recovery recovery = {0};
    int folder = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int spool = folder < 0 ? -1 : openat(folder, "spool", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_read = false;

    /* While a monitor runs, a segment may go away during the look at it. */
    for (int tries = 0; spool >= 0 && !is_read && tries < 10; tries++) {
        is_read = recovery_run(&recovery, spool, false);
        if (!is_read)
            recovery_free(&recovery);
    }
    if (is_read) {
        status_init(&status, folder);
        print_all(&status, &recovery, spool);
        recovery_free(&recovery);
        status_free(&status);
    } else {
        fprintf(stderr, "steep-monitor: %s: %s\n", state, strerror(errno));
    }
    if (spool >= 0)
        close(spool);
    if (folder >= 0)
        close(folder);
    return is_read ? EXIT_SUCCESS : EXIT_FAILURE;
}
