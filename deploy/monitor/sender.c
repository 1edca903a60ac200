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

static void wake_main(const struct sender *sender)
{
    const uint64_t one = 1;
    ssize_t ignored = write(sender->wake, &one, sizeof(one));

    (void)ignored;
}

/* Waits on the spool's condition until a time of clock_ms; 0: without a limit. */
static void wait_until(struct spool *spool, int64_t until)
{
    struct timespec moment = {until / 1000, until % 1000 * 1000000};

    if (until == 0)
        pthread_cond_wait(&spool->changed, &spool->lock);
    else
        pthread_cond_timedwait(&spool->changed, &spool->lock, &moment);
}

/* Whether to send a batch now; else sets *until to when, or 0 if unknown. Call with the lock held.
 */
static bool is_due(struct sender *sender, int64_t *until)
{
    const struct spool *spool = sender->spool;
    uint64_t pending = spool->next_serial - spool->cursor.serial;

    *until = 0;
    if (pending == 0)
        return false;
    if (sender->is_finishing || sender->is_stopping || pending >= sender->max_events ||
        spool->cursor.serial < sender->flush_to)
        return true;
    *until = spool->waiting_since + sender->interval_ms;
    if (clock_ms() < *until)
        return false;
    sender->flush_to = spool->next_serial;
    return true;
}

/* Waits until a batch is due; false if the thread is to end. */
static bool wait_for_batch(struct sender *sender)
{
    struct spool *spool = sender->spool;
    bool is_ready = false;
    int64_t until;

    pthread_mutex_lock(&spool->lock);
    while (!is_ready) {
        is_ready = is_due(sender, &until);
        if (sender->is_stopping && (!is_ready || clock_ms() >= sender->stop_at)) {
            is_ready = false;
            break;
        }
        if (sender->is_finishing && !is_ready)
            break;
        if (!is_ready)
            wait_until(spool, until);
    }
    sender->retry_now = false;
    pthread_mutex_unlock(&spool->lock);
    return is_ready;
}

/* Waits before a retry; false if the thread has to stop before it. */
static bool wait_to_retry(struct sender *sender, int64_t ms)
{
    struct spool *spool = sender->spool;
    int64_t until = clock_ms() + ms;
    bool has_time;

    pthread_mutex_lock(&spool->lock);
    /* After the end of the input, the first failure starts the shutdown. */
    if (sender->is_finishing && !sender->is_stopping) {
        sender->is_stopping = true;
        sender->stop_at = clock_ms() + SENDER_STOP_MS;
    }
    while (!sender->retry_now && clock_ms() < until) {
        if (sender->is_stopping && sender->stop_at <= until)
            break;
        wait_until(spool, until);
    }
    has_time = !sender->is_stopping || clock_ms() + 1 < sender->stop_at;
    if (sender->is_stopping && clock_ms() < until && sender->stop_at <= until && !sender->retry_now)
        has_time = false;
    sender->retry_now = false;
    pthread_mutex_unlock(&spool->lock);
    return has_time;
}

/* The limit of post_send: during a shutdown, the time until stop_at. */
static int64_t time_left(void *context)
{
    struct sender *sender = context;
    int64_t left = POST_TIMEOUT_MS;

    pthread_mutex_lock(&sender->spool->lock);
    if (sender->is_stopping)
        left = sender->stop_at - clock_ms();
    pthread_mutex_unlock(&sender->spool->lock);
    return left;
}

/* Describes the outcome of a request, for the log and the state file. */
static void describe(const struct answer *answer, int64_t retry_ms,
                     char text[static STATE_DETAIL_BYTES])
{
    const char *message = answer->action == ANSWER_STORED ? "" : answer->message;
    char retry[64] = "";

    if (answer->action == ANSWER_RETRY)
        snprintf(retry, sizeof(retry), ", retrying in %" PRId64 " s", (retry_ms + 999) / 1000);
    snprintf(text, STATE_DETAIL_BYTES, "%s%s%s%s", answer->detail, retry,
             *message == '\0' ? "" : ": ", message);
}

static void log_request(const struct sender *sender, const struct post_response *response,
                        const char *detail, int64_t retry_ms)
{
    const bool is_stored = sender->answer.action == ANSWER_STORED;
    struct log_line line;

    log_begin(&line, is_stored ? LOG_INFO : LOG_WARNING, "batch");
    log_number(&line, "status", response->status);
    log_number(&line, "events", (long long)sender->outgoing->count);
    log_number(&line, "bytes", (long long)sender->outgoing->length);
    log_number(&line, "ms", response->ms);
    if (!is_stored)
        log_string(&line, "detail", detail);
    if (sender->answer.action == ANSWER_RETRY)
        log_number(&line, "retry_ms", retry_ms);
    log_end(&line);
}

/* Logs how many events were rejected, and has the main thread save the totals. */
static void report_rejected(const struct sender *sender, const char *code, size_t count)
{
    struct log_line line;

    if (count == 0)
        return;
    log_begin(&line, LOG_WARNING, "rejected");
    log_number(&line, "count", (long long)count);
    log_string(&line, "error", code);
    log_end(&line);
    wake_main(sender);
}

/* Writes one event of the batch to rejected.ndjson; false if it can't. */
static bool reject(struct sender *sender, size_t index, const char *code, const char *message)
{
    const struct outgoing_event *event = &sender->outgoing->events[index];
    const struct rejected_item item = {
        .code = code,
        .message = *message == '\0' ? "rejected by the server" : message,
        .text = sender->outgoing->body + event->offset,
        .length = event->length,
    };

    return rejected_add(sender->rejected, &item);
}

/* Rejects every event; false if some couldn't be written, which stay in the batch. */
static bool reject_all(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;
    const size_t count = outgoing->count;
    size_t done = 0;

    while (done < count && reject(sender, done, sender->answer.code, sender->answer.message))
        done++;
    report_rejected(sender, sender->answer.code, done);
    for (size_t i = done; i > 0; i--)
        outgoing_remove(outgoing, i - 1);
    return done == count;
}

/* The same for the events that the server listed. */
static bool reject_listed(struct sender *sender)
{
    const struct answer *answer = &sender->answer;
    size_t done = 0;

    while (done < answer->rejected_count &&
           reject(sender, answer->rejected[done].index, answer->rejected[done].code,
                  answer->rejected[done].message))
        done++;
    report_rejected(sender, answer->rejected[0].code, done);
    /* From the end, so that the indexes before it stay valid. */
    for (size_t i = done; i > 0; i--)
        outgoing_remove(sender->outgoing, answer->rejected[i - 1].index);
    return done == answer->rejected_count;
}

/* Removes the batch from the spool; sent of its events are stored. */
static void remove_batch(struct sender *sender, uint64_t sent)
{
    rejected_sync(sender->rejected);
    spool_forget(sender->spool, &sender->outgoing->end, sent);
    wake_main(sender);
}

/* Carries out the answer's action; false if the disk failed. */
static bool apply_answer(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;
    bool is_done = true;

    switch (sender->answer.action) {
    case ANSWER_STORED:
        remove_batch(sender, outgoing->count);
        outgoing->count = 0;
        /* Grow back slowly after a 413. */
        sender->limit += sender->limit / 8 + 1;
        if (sender->limit > sender->max_events)
            sender->limit = sender->max_events;
        return true;
    case ANSWER_HALVE:
        if (outgoing->count > 1) {
            sender->limit = outgoing->count / 2;
            outgoing_shorten(outgoing, sender->limit);
            return true;
        }
        is_done = reject_all(sender);
        break;
    case ANSWER_REJECT:
        is_done = reject_all(sender);
        break;
    case ANSWER_REJECT_LISTED:
        is_done = reject_listed(sender);
        break;
    case ANSWER_RETRY:
        break;
    }
    if (outgoing->count == 0)
        remove_batch(sender, 0);
    return is_done;
}

/* The delay after a request; 0 after a success. */
static int64_t next_delay(struct sender *sender, bool is_failure)
{
    if (!is_failure) {
        sender->failures = 0;
        return 0;
    }
    sender->failures++;
    return sender->answer.retry_ms >= 0 ? sender->answer.retry_ms
                                        : answer_backoff(sender->failures);
}

/* Sends the loaded batch until all of it is stored or rejected; false if the thread has to stop. */
static bool send_batch(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;

    while (outgoing->count > 0) {
        struct post_response response;
        char detail[STATE_DETAIL_BYTES];
        int64_t retry_ms;

        rejected_sync(sender->rejected); /* before the spool records that their lines were read */
        (void)spool_sync(sender->spool); /* on failure, send all the same: the server is safer */
        keys_sign(sender->keys, outgoing->body, outgoing->length, sender->signature);
        post_send(sender->post, outgoing->body, outgoing->length, sender->signature, time_left,
                  sender, &response);
        answer_read(&response, outgoing->count, time(NULL), &sender->answer);
        retry_ms = next_delay(sender, sender->answer.action == ANSWER_RETRY);
        describe(&sender->answer, retry_ms, detail);
        log_request(sender, &response, detail, retry_ms);
        if (!apply_answer(sender)) {
            sender->answer.retry_ms = -1;
            retry_ms = next_delay(sender, true);
        }
        state_set_response(sender->state, response.status, detail);
        if (retry_ms > 0 && outgoing->count > 0 && !wait_to_retry(sender, retry_ms))
            return false;
    }
    return true;
}

/* Loads the oldest events from the spool; false if the thread has to stop. */
static bool load_batch(struct sender *sender)
{
    struct outgoing *outgoing = sender->outgoing;

    while (!outgoing_load(outgoing, sender->spool, sender->limit)) {
        log_event(LOG_ERROR, "spool_error", strerror(errno));
        sender->answer.retry_ms = -1;
        if (!wait_to_retry(sender, next_delay(sender, true)))
            return false;
    }
    /* All remaining records were damaged. */
    if (outgoing->count == 0)
        remove_batch(sender, 0);
    return true;
}

static void *run(void *context)
{
    struct sender *sender = context;

    while (wait_for_batch(sender)) {
        if (!load_batch(sender) || !send_batch(sender))
            break;
    }
    pthread_mutex_lock(&sender->spool->lock);
    sender->has_ended = true;
    pthread_mutex_unlock(&sender->spool->lock);
    wake_main(sender);
    return NULL;
}

bool sender_start(struct sender *sender)
{
    sigset_t all, before;
    int error;

    sender->outgoing = outgoing_new(sender->spool->folder);
    if (sender->outgoing == NULL)
        return false;
    sender->limit = sender->max_events;
    /* Send what an earlier process left without waiting for the interval. */
    sender->flush_to = sender->spool->next_serial;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&sender->thread, NULL, run, sender);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        outgoing_free(sender->outgoing);
    return error == 0;
}

void sender_flush(struct sender *sender, bool retry_now)
{
    pthread_mutex_lock(&sender->spool->lock);
    sender->flush_to = sender->spool->next_serial;
    sender->retry_now = sender->retry_now || retry_now;
    pthread_cond_signal(&sender->spool->changed);
    pthread_mutex_unlock(&sender->spool->lock);
}

void sender_finish(struct sender *sender)
{
    pthread_mutex_lock(&sender->spool->lock);
    sender->is_finishing = true;
    sender->retry_now = true;
    pthread_cond_signal(&sender->spool->changed);
    pthread_mutex_unlock(&sender->spool->lock);
}

void sender_stop(struct sender *sender)
{
    pthread_mutex_lock(&sender->spool->lock);
    if (!sender->is_stopping) {
        sender->is_stopping = true;
        sender->retry_now = true;
        sender->stop_at = clock_ms() + SENDER_STOP_MS;
    }
    pthread_cond_signal(&sender->spool->changed);
    pthread_mutex_unlock(&sender->spool->lock);
    post_wake(sender->post);
}

bool sender_has_ended(struct sender *sender)
{
    bool has_ended;

    pthread_mutex_lock(&sender->spool->lock);
    has_ended = sender->has_ended;
    pthread_mutex_unlock(&sender->spool->lock);
    return has_ended;
}

void sender_join(struct sender *sender)
{
    pthread_join(sender->thread, NULL);
    outgoing_free(sender->outgoing);
}
