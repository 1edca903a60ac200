#include "sender.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wake_reader(const struct sender *sender)
{
    const uint64_t one = 1;
    ssize_t ignored = write(sender->wake, &one, sizeof(one));

    (void)ignored;
}

/* Waits on the spool's condition until a moment of clock_ms, or without one for 0. */
static void wait_until(struct spool *spool, int64_t until)
{
    struct timespec moment = {until / 1000, until % 1000 * 1000000};

    if (until == 0)
        pthread_cond_wait(&spool->changed, &spool->lock);
    else
        pthread_cond_timedwait(&spool->changed, &spool->lock, &moment);
}

/* Whether a batch is due now; else *until is when it may be, or 0. Under the lock. */
static bool is_due(struct sender *sender, int64_t *until)
{
    const struct spool *spool = sender->spool;
    uint64_t waiting = spool->next_serial - spool->cursor.serial;

    *until = 0;
    if (waiting == 0)
        return false;
    if (sender->is_finishing || sender->is_stopping || waiting >= sender->most ||
        spool->cursor.serial < sender->flush_to)
        return true;
    *until = spool->waiting_since + sender->interval_ms;
    if (clock_ms() < *until)
        return false;
    sender->flush_to = spool->next_serial;
    return true;
}

/* Waits until a batch is due; false where the thread is to end. */
static bool await_batch(struct sender *sender)
{
    struct spool *spool = sender->spool;
    bool is_wanted = false;
    int64_t until;

    pthread_mutex_lock(&spool->lock);
    while (!is_wanted) {
        is_wanted = is_due(sender, &until);
        if (sender->is_stopping && (!is_wanted || clock_ms() >= sender->until)) {
            is_wanted = false;
            break;
        }
        if (sender->is_finishing && !is_wanted)
            break;
        if (!is_wanted)
            wait_until(spool, until);
    }
    sender->is_hurried = false;
    pthread_mutex_unlock(&spool->lock);
    return is_wanted;
}

/* Waits before the next try; false where there is no time for one. */
static bool rest(struct sender *sender, int64_t ms)
{
    struct spool *spool = sender->spool;
    int64_t until = clock_ms() + ms;
    bool has_time;

    pthread_mutex_lock(&spool->lock);
    /* At the end of the input, a failure begins the end of the process. */
    if (sender->is_finishing && !sender->is_stopping) {
        sender->is_stopping = true;
        sender->until = clock_ms() + SENDER_FLUSH_MS;
    }
    while (!sender->is_hurried && clock_ms() < until) {
        if (sender->is_stopping && sender->until <= until)
            break;
        wait_until(spool, until);
    }
    has_time = !sender->is_stopping || clock_ms() + 1 < sender->until;
    if (sender->is_stopping && clock_ms() < until && sender->until <= until && !sender->is_hurried)
        has_time = false;
    sender->is_hurried = false;
    pthread_mutex_unlock(&spool->lock);
    return has_time;
}

/* post_send's limit: the last flush has its end. */
static int64_t time_left(void *context)
{
    struct sender *sender = context;
    int64_t left = POST_TIMEOUT_MS;

    pthread_mutex_lock(&sender->spool->lock);
    if (sender->is_stopping)
        left = sender->until - clock_ms();
    pthread_mutex_unlock(&sender->spool->lock);
    return left;
}

static void log_try(const struct sender *sender, const struct post_answer *post, int64_t wait_ms)
{
    const bool is_good = sender->answer.action == ANSWER_FORGET;
    struct log_line line;

    log_begin(&line, is_good ? LOG_INFO : LOG_WARNING, "batch");
    log_number(&line, "status", post->status);
    log_number(&line, "events", (long long)sender->outgoing->count);
    log_number(&line, "bytes", (long long)sender->outgoing->length);
    log_number(&line, "ms", post->ms);
    if (!is_good) {
        log_string(&line, "detail", sender->answer.detail);
        log_number(&line, "wait_ms", wait_ms);
    }
    log_end(&line);
}

/* Says how many were set aside, to the log and to the thread that keeps count. */
static void note_rejected(const struct sender *sender, const char *code, size_t count)
{
    struct log_line line;

    if (count == 0)
        return;
    log_begin(&line, LOG_WARNING, "rejected");
    log_number(&line, "count", (long long)count);
    log_string(&line, "error", code);
    log_end(&line);
    wake_reader(sender);
}

/* Copies one event of the batch to those set aside; false where it can't be written. */
static bool set_aside(struct sender *sender, size_t index, const char *code, const char *message)
{
    const struct outgoing_event *event = &sender->outgoing->events[index];
    const struct rejected_item item = {
        .code = code,
        .message = *message == '\0' ? "the server refuses it" : message,
        .text = sender->outgoing->body + event->offset,
        .length = event->length,
    };

    return rejected_add(sender->rejected, &item);
}

/* Sets the whole batch aside; what could be written is taken out of it. */
static bool set_all_aside(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;
    const size_t count = outgoing->count;
    size_t done = 0;

    while (done < count && set_aside(sender, done, sender->answer.code, sender->answer.message))
        done++;
    note_rejected(sender, sender->answer.code, done);
    for (size_t i = done; i > 0; i--)
        outgoing_remove(outgoing, i - 1);
    return done == count;
}

/* The same with those that the answer lists. */
static bool set_listed_aside(struct sender *sender)
{
    const struct answer *answer = &sender->answer;
    size_t done = 0;

    while (done < answer->rejected_count &&
           set_aside(sender, answer->rejected[done].index, answer->rejected[done].code,
                     answer->rejected[done].message))
        done++;
    note_rejected(sender, answer->rejected[0].code, done);
    /* From behind, so that the positions stay right. */
    for (size_t i = done; i > 0; i--)
        outgoing_remove(sender->outgoing, answer->rejected[i - 1].index);
    return done == answer->rejected_count;
}

static void forget(struct sender *sender, uint64_t sent)
{
    rejected_sync(sender->rejected);
    spool_forget(sender->spool, &sender->outgoing->end, sent);
    wake_reader(sender);
}

/* Acts on an answer that is no reason to wait; false where the disk refuses. */
static bool act(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;
    bool is_done = true;

    switch (sender->answer.action) {
    case ANSWER_FORGET:
        forget(sender, outgoing->count);
        outgoing->count = 0;
        /* After a 413, more is tried again little by little. */
        sender->limit += sender->limit / 8 + 1;
        if (sender->limit > sender->most)
            sender->limit = sender->most;
        return true;
    case ANSWER_HALVE:
        if (outgoing->count > 1) {
            sender->limit = outgoing->count / 2;
            outgoing_shorten(outgoing, sender->limit);
            return true;
        }
        is_done = set_all_aside(sender);
        break;
    case ANSWER_SET_ASIDE:
        is_done = set_all_aside(sender);
        break;
    case ANSWER_SET_ASIDE_LISTED:
        is_done = set_listed_aside(sender);
        break;
    case ANSWER_WAIT:
        break;
    }
    if (outgoing->count == 0)
        forget(sender, 0);
    return is_done;
}

/* How long to wait after a try, or after an action that the disk refused. */
static int64_t next_wait(struct sender *sender, bool is_failure)
{
    if (!is_failure) {
        sender->failures = 0;
        return 0;
    }
    sender->failures++;
    return sender->answer.wait_ms >= 0 ? sender->answer.wait_ms : answer_backoff(sender->failures);
}

/* Sends the batch at hand until it is dealt with; false where there is no more time. */
static bool send_batch(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;

    while (outgoing->count > 0) {
        struct post_answer post;
        int64_t wait_ms;

        rejected_sync(sender->rejected); /* before the position that lies behind them */
        (void)spool_sync(sender->spool); /* what fails was said; the server is the safer place */
        keys_sign(sender->keys, outgoing->body, outgoing->length, sender->signature);
        post_send(sender->post, outgoing->body, outgoing->length, sender->signature, time_left,
                  sender, &post);
        answer_judge(&post, outgoing->count, time(NULL), &sender->answer);
        wait_ms = next_wait(sender, sender->answer.action == ANSWER_WAIT);
        log_try(sender, &post, wait_ms);
        if (!act(sender)) {
            sender->answer.wait_ms = -1;
            wait_ms = next_wait(sender, true);
        }
        status_answer(sender->status, post.status, sender->answer.detail);
        if (wait_ms > 0 && outgoing->count > 0 && !rest(sender, wait_ms))
            return false;
    }
    return true;
}

/* Takes the oldest events from the spool; false where there is no more time to do so. */
static bool load(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;

    while (!outgoing_load(outgoing, sender->spool, sender->limit)) {
        log_event(LOG_ERROR, "spool_error", strerror(errno));
        sender->answer.wait_ms = -1;
        if (!rest(sender, next_wait(sender, true)))
            return false;
    }
    /* All that was left is damaged. */
    if (outgoing->count == 0)
        forget(sender, 0);
    return true;
}

static void *run(void *context)
{
    struct sender *sender = context;

    while (await_batch(sender)) {
        if (!load(sender) || !send_batch(sender))
            break;
    }
    pthread_mutex_lock(&sender->spool->lock);
    sender->is_ended = true;
    pthread_mutex_unlock(&sender->spool->lock);
    wake_reader(sender);
    return NULL;
}

bool sender_start(struct sender *sender)
{
    sigset_t all, before;
    int error;

    sender->outgoing = outgoing_new(sender->spool->folder);
    if (sender->outgoing == NULL)
        return false;
    sender->limit = sender->most;
    /* What an earlier process left waits long enough already. */
    sender->flush_to = sender->spool->next_serial;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&sender->thread, NULL, run, sender);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        outgoing_free(sender->outgoing);
    return error == 0;
}

void sender_flush(struct sender *sender, bool is_hurried)
{
    pthread_mutex_lock(&sender->spool->lock);
    sender->flush_to = sender->spool->next_serial;
    sender->is_hurried = sender->is_hurried || is_hurried;
    pthread_cond_signal(&sender->spool->changed);
    pthread_mutex_unlock(&sender->spool->lock);
}

void sender_finish(struct sender *sender)
{
    pthread_mutex_lock(&sender->spool->lock);
    sender->is_finishing = true;
    sender->is_hurried = true;
    pthread_cond_signal(&sender->spool->changed);
    pthread_mutex_unlock(&sender->spool->lock);
}

void sender_stop(struct sender *sender)
{
    pthread_mutex_lock(&sender->spool->lock);
    if (!sender->is_stopping) {
        sender->is_stopping = true;
        sender->is_hurried = true;
        sender->until = clock_ms() + SENDER_FLUSH_MS;
    }
    pthread_cond_signal(&sender->spool->changed);
    pthread_mutex_unlock(&sender->spool->lock);
    post_wake(sender->post);
}

bool sender_is_ended(struct sender *sender)
{
    bool is_ended;

    pthread_mutex_lock(&sender->spool->lock);
    is_ended = sender->is_ended;
    pthread_mutex_unlock(&sender->spool->lock);
    return is_ended;
}

void sender_join(struct sender *sender)
{
    pthread_join(sender->thread, NULL);
    outgoing_free(sender->outgoing);
}
