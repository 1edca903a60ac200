#include "state.h"

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

static const char NAME[] = "state";

enum { FILE_BYTES = 1024, STAMP_BYTES = 32 };

static void read_file(struct state *state, int folder)
{
    char text[FILE_BYTES];
    uint64_t status, time;
    const char *detail;

    state->last_status = -1;
    if (files_read(folder, NAME, text, sizeof(text)) < 0)
        return;
    (void)!files_number(text, "rejected", &state->rejected);
    (void)!files_number(text, "dropped", &state->dropped);
    if (!files_number(text, "last_status", &status) || !files_number(text, "last_time", &time))
        return;
    state->last_status = (int)status;
    state->last_time = (int64_t)time;
    detail = strstr(text, "\nlast_detail=");
    if (detail != NULL)
        snprintf(state->last_detail, sizeof(state->last_detail), "%.*s",
                 (int)strcspn(detail + strlen("\nlast_detail="), "\n"),
                 detail + strlen("\nlast_detail="));
}

void state_init(struct state *state, int folder)
{
    *state = (struct state){.folder = folder};
    pthread_mutex_init(&state->lock, NULL);
    read_file(state, folder);
}

void state_free(struct state *state)
{
    pthread_mutex_destroy(&state->lock);
}

/* Call with the lock held. */
static void write_file(struct state *state)
{
    char text[FILE_BYTES];
    int length = snprintf(text, sizeof(text),
                          "rejected=%" PRIu64 "\ndropped=%" PRIu64
                          "\nlast_status=%d\nlast_time=%" PRId64 "\nlast_detail=%s\n",
                          state->rejected, state->dropped, state->last_status, state->last_time,
                          state->last_detail);

    /* A failure is ignored: the file is informational, and the spool reports a full disk. */
    (void)!files_replace(state->folder, NAME, text, (size_t)length, false);
}

void state_set_response(struct state *state, int status, const char *detail)
{
    pthread_mutex_lock(&state->lock);
    state->last_status = status;
    state->last_time = time(NULL);
    snprintf(state->last_detail, sizeof(state->last_detail), "%s", detail);
    for (char *c = state->last_detail; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
            *c = '?';
    }
    write_file(state);
    pthread_mutex_unlock(&state->lock);
}

void state_set_totals(struct state *state, uint64_t rejected, uint64_t dropped)
{
    pthread_mutex_lock(&state->lock);
    if (state->rejected != rejected || state->dropped != dropped) {
        state->rejected = rejected;
        state->dropped = dropped;
        write_file(state);
    }
    pthread_mutex_unlock(&state->lock);
}

/* When the oldest pending event was accepted; 0 if it can't be read. */
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

/* Whether a process holds the lock on this folder. */
static bool is_running(int folder)
{
    struct flock found = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int lock = openat(folder, "lock", O_RDONLY | O_CLOEXEC);
    bool is_held;

    if (lock < 0)
        return false;
    /* Taking the lock, even briefly, could keep a process from starting. */
    is_held = fcntl(lock, F_OFD_GETLK, &found) == 0 && found.l_type != F_UNLCK;
    close(lock);
    return is_held;
}

static void print_all(const struct state *state, const struct recovery *recovery, int spool)
{
    uint64_t pending = recovery->next_serial - recovery->cursor.place.serial;
    char stamp[STAMP_BYTES] = "";
    char status[STAMP_BYTES] = "none";
    time_t when = (time_t)state->last_time;
    struct tm tm;

    printf("running: %s\n", is_running(state->folder) ? "yes" : "no");
    printf("pending: %" PRIu64 "\n", pending);
    if (pending > 0) {
        int64_t age = (int64_t)time(NULL) - oldest_ms(recovery, spool) / 1000;

        printf("oldest pending: %" PRId64 " s\n", age < 0 ? 0 : age);
    }
    printf("sent: %" PRIu64 "\n", recovery->cursor.sent);
    printf("rejected: %" PRIu64 "\n", state->rejected);
    printf("dropped: %" PRIu64 "\n", state->dropped);
    if (state->last_status < 0) {
        printf("last response: nothing sent yet\n");
        return;
    }
    if (gmtime_r(&when, &tm) != NULL)
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (state->last_status > 0)
        snprintf(status, sizeof(status), "%d", state->last_status);
    printf("last response: %s at %s: %s\n", status, stamp, state->last_detail);
}

int state_print(const char *path)
{
    struct state state;
    struct recovery recovery = {0};
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int spool = folder < 0 ? -1 : openat(folder, "spool", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_read = false;

    /* A running monitor may remove a segment while it is being read. */
    for (int attempt = 0; spool >= 0 && !is_read && attempt < 10; attempt++) {
        is_read = recovery_run(&recovery, spool, false);
        if (!is_read)
            recovery_free(&recovery);
    }
    if (is_read) {
        state_init(&state, folder);
        print_all(&state, &recovery, spool);
        recovery_free(&recovery);
        state_free(&state);
    } else {
        fprintf(stderr, "steep-monitor: cannot read the state folder %s: %s\n", path,
                strerror(errno));
    }
    if (spool >= 0)
        close(spool);
    if (folder >= 0)
        close(folder);
    return is_read ? EXIT_SUCCESS : EXIT_FAILURE;
}
