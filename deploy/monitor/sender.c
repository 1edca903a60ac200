#include "sender.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COMMIT_RETRY_MS = 1000, /* also after the spool can't be read */
    CLOCK_CHECK_MS = 1000,
    NEAR_REFUSALS = 4,     /* one after the other, before events are passed over */
    WORKING_REFUSALS = 64, /* the same, if others were accepted before */
    MAX_STRIDE_BITS = 20,  /* how many events are passed over at most */
};

static const int64_t NEVER = INT64_MAX;

static void wake_main(const struct sender *sender)
{
    const uint64_t one = 1;
    ssize_t ignored = write(sender->wake, &one, sizeof(one));

    (void)ignored;
}

/* Waits on the spool's condition until a time of clock_ms. */
static void wait_until(struct spool *spool, int64_t until)
{
    struct timespec moment = {until / 1000, until % 1000 * 1000000};

    if (until == NEVER)
        pthread_cond_wait(&spool->changed, &spool->lock);
    else
        pthread_cond_timedwait(&spool->changed, &spool->lock, &moment);
}

/* The route of a lane, which it is given if it has none; NULL: no memory. */
static struct route *find_route(struct sender *sender, int64_t lane)
{
    struct route *routes;

    for (size_t i = 0; i < sender->route_count; i++) {
        if (sender->routes[i].lane.id == lane)
            return &sender->routes[i];
    }
    routes = reallocarray(sender->routes, sender->route_count + 1, sizeof(*routes));
    if (routes == NULL)
        return NULL;
    sender->routes = routes;
    routes[sender->route_count] = (struct route){.limit = sender->max_events, .lap = INT64_MAX};
    return &routes[sender->route_count++];
}

/* Reads which lanes have events now; false: no memory. */
static bool update_routes(struct sender *sender, int64_t now)
{
    struct lane lane = {0};
    int found;

    for (size_t i = 0; i < sender->route_count; i++)
        sender->routes[i].lane.waiting = 0;
    while ((found = spool_next_lane(sender->spool, lane.id, &lane)) > 0) {
        struct route *route = find_route(sender, lane.id);

        if (route == NULL)
            return false;
        route->lane = lane;
        if (route->lap > lane.accepted)
            route->lap = lane.accepted;
        if (route->since == 0)
            route->since = now;
    }
    sender->has_failed = found < 0;
    for (size_t i = 0; i < sender->route_count; i++) {
        if (sender->routes[i].lane.waiting == 0) {
            sender->routes[i].since = 0;
            sender->routes[i].is_flushing = false;
        }
    }
    return true;
}

/* When to send a route's next batch; NEVER if it has none. Call with the lock held. */
static int64_t due_at(const struct sender *sender, const struct route *route, int64_t now)
{
    const bool is_ending = sender->is_finishing || sender->is_stopping;

    if (route->lane.waiting == 0)
        return NEVER;
    if (route->lane.boot[0] != '\0' && !moment_is_set())
        return is_ending ? NEVER : now + CLOCK_CHECK_MS;
    if (route->retry_at > now)
        return route->retry_at;
    if (is_ending || route->count > 0 || route->lane.waiting >= (int64_t)sender->max_events ||
        route->is_flushing)
        return now;
    return route->since + sender->interval_ms;
}

/*
 * The route to send from: of those that are due, the one that was tried least recently. Else
 * NULL, and *until is when the first is due. Call with the lock held.
 */
static struct route *find_due(struct sender *sender, int64_t now, int64_t *until)
{
    struct route *found = NULL;

    *until = NEVER;
    for (size_t i = 0; i < sender->route_count; i++) {
        struct route *route = &sender->routes[i];
        int64_t at;

        if (sender->retry_now)
            route->retry_at = 0;
        if ((sender->flush_now && route->lane.waiting > 0) ||
            (route->since != 0 && now >= route->since + sender->interval_ms))
            route->is_flushing = true;
        at = due_at(sender, route, now);
        if (at <= now && (found == NULL || route->tried_at < found->tried_at))
            found = route;
        if (at < *until)
            *until = at;
    }
    sender->flush_now = sender->retry_now = false;
    return found;
}

/* After the end of the input, the first failure starts the shutdown. Call with the lock held. */
static void start_stopping(struct sender *sender)
{
    if (sender->is_finishing && !sender->is_stopping) {
        sender->is_stopping = true;
        sender->stop_at = clock_ms() + SENDER_STOP_MS;
    }
}

/* Waits until a batch is due. Returns its route, or NULL if the thread is to end. */
static struct route *wait_for_batch(struct sender *sender)
{
    struct spool *spool = sender->spool;
    struct route *route = NULL;
    int64_t until;

    pthread_mutex_lock(&spool->lock);
    while (update_routes(sender, clock_ms())) {
        const int64_t now = clock_ms();

        route = find_due(sender, now, &until);
        if (sender->has_failed) {
            start_stopping(sender);
            if (until > now + COMMIT_RETRY_MS)
                until = now + COMMIT_RETRY_MS;
        }
        if (sender->is_stopping && now >= sender->stop_at)
            route = NULL;
        if (route != NULL || (sender->is_finishing && until == NEVER) ||
            (sender->is_stopping && (until == NEVER || until >= sender->stop_at)))
            break;
        wait_until(spool, until);
    }
    pthread_mutex_unlock(&spool->lock);
    return route;
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

/* Describes the outcome of a request, for the log and the status. */
static void describe(const struct answer *answer, int64_t retry_ms,
                     char text[static SENDER_DETAIL_BYTES])
{
    const char *message = answer->action == ANSWER_STORED ? "" : answer->message;
    char retry[64] = "";

    if (retry_ms > 0)
        snprintf(retry, sizeof(retry), ", retrying in %" PRId64 " s", (retry_ms + 999) / 1000);
    snprintf(text, SENDER_DETAIL_BYTES, "%s%s%s%s", answer->detail, retry,
             *message == '\0' ? "" : ": ", message);
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
            *c = '?';
    }
}

static void log_request(const struct sender *sender, const struct route *route,
                        const struct post_response *response, const char *detail, int64_t retry_ms)
{
    const bool is_stored = sender->answer.action == ANSWER_STORED;
    struct log_line line;

    log_begin(&line, is_stored ? LOG_INFO : LOG_WARNING, "batch");
    log_number(&line, "status", response->status);
    log_number(&line, "events", (long long)sender->outgoing->count);
    log_number(&line, "bytes", (long long)sender->outgoing->length);
    log_number(&line, "ms", response->ms);
    if (strcmp(route->lane.name, sender->spool->name) != 0)
        log_string(&line, "source", route->lane.name);
    if (!is_stored)
        log_string(&line, "detail", detail);
    if (retry_ms > 0 || sender->answer.action == ANSWER_RETRY)
        log_number(&line, "retry_ms", retry_ms);
    log_end(&line);
}

/* Commits what the answer means; until it can, the sender doesn't go on. False to end. */
static bool settle(struct sender *sender, const struct route *route, const char *detail)
{
    struct spool *spool = sender->spool;
    const bool is_change =
        sender->answer.action == ANSWER_STORED || sender->answer.action == ANSWER_REJECT_LISTED;
    bool is_ended = false;

    while (!spool_settle(spool, &route->lane, sender->outgoing, &sender->answer, detail) &&
           is_change && !is_ended) {
        int64_t until = clock_ms() + COMMIT_RETRY_MS;

        pthread_mutex_lock(&spool->lock);
        start_stopping(sender);
        while (clock_ms() < until && !is_ended) {
            if (sender->is_stopping && sender->stop_at < until)
                until = sender->stop_at;
            wait_until(spool, until);
            is_ended = sender->is_stopping && clock_ms() >= sender->stop_at;
        }
        pthread_mutex_unlock(&spool->lock);
    }
    if (is_change)
        wake_main(sender);
    return !is_ended;
}

static void report_rejected(const struct answer *answer)
{
    struct log_line line;

    log_begin(&line, LOG_WARNING, "rejected");
    log_number(&line, "count", (long long)answer->rejected_count);
    log_string(&line, "error", answer->rejected[0].code);
    log_end(&line);
}

/* An event that is refused once more is rejected if another one was accepted in between. */
static void judge_lone_event(struct sender *sender, const struct route *route)
{
    struct answer *answer = &sender->answer;
    struct answer_rejection *rejection = &answer->rejected[0];
    const int64_t refused = sender->outgoing->refused;

    if (refused < 0 || refused >= route->lane.accepted) {
        log_event(LOG_WARNING, "skipped",
                  "the server refused an event, which is tried again later");
        return;
    }
    answer->action = ANSWER_REJECT_LISTED;
    answer->rejected_count = 1;
    rejection->index = 0;
    snprintf(rejection->code, sizeof(rejection->code), "%s", answer->code);
    snprintf(rejection->message, sizeof(rejection->message), "%s",
             answer->message[0] == '\0' ? "refused by the server" : answer->message);
}

/* The delay after an answer; 0 to go on at once. */
static int64_t next_delay(struct sender *sender, struct route *route)
{
    const struct answer *answer = &sender->answer;
    const bool is_skipped = answer->action == ANSWER_HALVE && sender->outgoing->count == 1;

    if (answer->action == ANSWER_STORED || answer->action == ANSWER_REJECT_LISTED)
        route->failures = 0;
    if (answer->action != ANSWER_RETRY && !is_skipped)
        return 0;
    route->failures++;
    if (is_skipped && route->lane.waiting > 1 &&
        (route->failures == 1 || (route->is_working && route->refusals < WORKING_REFUSALS)))
        return 0;
    pthread_mutex_lock(&sender->spool->lock);
    start_stopping(sender);
    pthread_mutex_unlock(&sender->spool->lock);
    return answer->action == ANSWER_RETRY && answer->retry_ms >= 0
               ? answer->retry_ms
               : answer_backoff(route->failures);
}

/* How many events to pass over after so many were refused in a row: ever more, at random. */
static int64_t stride(const struct route *route)
{
    const unsigned near = route->is_working ? WORKING_REFUSALS : NEAR_REFUSALS;
    const unsigned bits = route->refusals < near ? 0 : route->refusals - near;

    return randombytes_uniform(1U << (bits < MAX_STRIDE_BITS ? bits : MAX_STRIDE_BITS));
}

/*
 * What the route does next. Behind many events that are refused is one that is accepted, or
 * the server refuses everything: so ever more of them are passed over until one is accepted.
 * Behind the last event it begins anew, and is sure about the server if it accepted some.
 */
static void advance(const struct sender *sender, struct route *route)
{
    const struct outgoing *outgoing = sender->outgoing;
    const int64_t behind = outgoing->serials[outgoing->count - 1] + 1;

    switch (sender->answer.action) {
    case ANSWER_STORED:
        /* Grow back slowly after a refusal. */
        route->limit += route->limit / 8 + 1;
        if (route->limit > sender->max_events)
            route->limit = sender->max_events;
        route->count = 0;
        route->refusals = 0;
        route->since = 0;
        route->next = behind;
        if ((int64_t)outgoing->count >= route->lane.waiting)
            route->is_flushing = false;
        break;
    case ANSWER_REJECT_LISTED:
        route->count = outgoing->count - sender->answer.rejected_count;
        break;
    case ANSWER_HALVE:
        route->count = outgoing->count / 2;
        if (route->count > 0) {
            route->limit = route->count;
            break;
        }
        route->next = behind + stride(route);
        if (outgoing->refused < 0)
            route->refusals++;
        break;
    case ANSWER_RETRY:
        route->count = outgoing->count;
        break;
    }
}

/* Behind the last event: goes back to those that were passed over or refused. */
static void begin_anew(struct route *route)
{
    if (route->next == 0)
        route->retry_at = clock_ms() + answer_backoff(++route->failures);
    route->next = 0;
    route->count = 0;
    route->is_flushing = false;
    route->refusals = 0;
    route->is_working = route->lane.accepted > route->lap;
    route->lap = route->lane.accepted;
}

/* Sends a batch once; false if the thread is to end. */
static bool send_batch(struct sender *sender, struct route *route)
{
    struct outgoing *outgoing = sender->outgoing;
    struct post_response response;
    char detail[SENDER_DETAIL_BYTES];
    int64_t retry_ms;

    route->tried_at = clock_ms();
    if (!spool_load(sender->spool, &route->lane, route->next,
                    route->count > 0 ? route->count : route->limit, outgoing)) {
        route->retry_at = clock_ms() + COMMIT_RETRY_MS;
        pthread_mutex_lock(&sender->spool->lock);
        start_stopping(sender);
        pthread_mutex_unlock(&sender->spool->lock);
        return true;
    }
    if (outgoing->count == 0) {
        begin_anew(route);
        return true;
    }
    keys_sign(sender->keys, outgoing->body, outgoing->length, sender->signature);
    post_send(sender->post, route->lane.name, outgoing->body, outgoing->length, sender->signature,
              time_left, sender, &response);
    answer_read(&response, outgoing->count, time(NULL), &sender->answer);
    if (sender->answer.action == ANSWER_HALVE && outgoing->count == 1)
        judge_lone_event(sender, route);
    retry_ms = next_delay(sender, route);
    route->retry_at = retry_ms == 0 ? 0 : clock_ms() + retry_ms;
    describe(&sender->answer, retry_ms, detail);
    log_request(sender, route, &response, detail, retry_ms);
    if (sender->answer.action == ANSWER_REJECT_LISTED)
        report_rejected(&sender->answer);
    if (!settle(sender, route, detail))
        return false;
    advance(sender, route);
    return true;
}

static void *run(void *context)
{
    struct sender *sender = context;
    struct route *route;

    while ((route = wait_for_batch(sender)) != NULL && send_batch(sender, route))
        ;
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

    sender->outgoing = malloc(sizeof(*sender->outgoing));
    if (sender->outgoing == NULL)
        return false;
    /* Send what an earlier process left without waiting for the interval. */
    sender->flush_now = spool_waiting(sender->spool) > 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&sender->thread, NULL, run, sender);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        free(sender->outgoing);
    return error == 0;
}

void sender_flush(struct sender *sender, bool retry_now)
{
    pthread_mutex_lock(&sender->spool->lock);
    sender->flush_now = true;
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
    free(sender->outgoing);
    free(sender->routes);
}
