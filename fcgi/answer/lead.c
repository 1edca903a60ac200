#include "answer/lead.h"

#include "answer/shared.h"
#include "answer/turns.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "db/array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A leader, and the requests that its next run is to answer, in the order of their arrival. */
struct lead {
    struct worker *worker;
    struct shared shared;
    struct query *own;           /* its own request; NULL once that needs no run */
    struct shared_member *first; /* the others */
    bool needs_turn;             /* its run is in a turn, for one form */
    bool has_turn;
    bool is_last; /* no run follows this one */
};

static struct query *query_of(struct shared_member *member)
{
    return (struct query *)member;
}

/* The first of those that are to be answered; NULL for nobody. */
static struct query *first_query(const struct lead *lead)
{
    return lead->own != NULL || lead->first == NULL ? lead->own : query_of(lead->first);
}

static struct query *next_query(const struct lead *lead, const struct query *query)
{
    struct shared_member *next = query == lead->own ? lead->first : query->member.next;

    return next != NULL ? query_of(next) : NULL;
}

/* Forgets the first one, which was answered, or is another's from now on. */
static void drop_first(struct lead *lead)
{
    struct shared_member *first = lead->first;

    if (lead->own != NULL) {
        lead->own = NULL;
    } else {
        lead->first = first->next;
        scope_release(query_of(first)->asked.scope);
        free(query_of(first));
    }
}

static void add_members(struct lead *lead, struct shared_member *members)
{
    struct shared_member **link = &lead->first;

    while (*link != NULL)
        link = &(*link)->next;
    *link = members;
}

/* Has any worker answer the first one from its beginning. */
static void put_back_first(struct lead *lead, const struct query *query)
{
    struct request *request = query == lead->own ? worker_give_away(lead->worker) : query->request;

    if (request != NULL)
        worker_put_back(lead->worker, request);
    else
        query_refuse(lead->worker, query, ERROR_INTERNAL);
    drop_first(lead);
}

/* The record of the run is that of each request. */
static void note_request(struct worker *worker, const struct query *query)
{
    snprintf(worker->record.request, sizeof(worker->record.request), "%s", query->request->id);
}

static void refuse_first(struct lead *lead, const struct query *query, enum error error)
{
    note_request(lead->worker, query);
    query_refuse(lead->worker, query, error);
    drop_first(lead);
}

/* Has PostgreSQL log the ids of all requests whose run failed. */
static void note_failure(struct lead *lead)
{
    struct worker *worker = lead->worker;
    size_t count = 0;
    struct array_item *items;

    for (const struct query *query = first_query(lead); query != NULL;
         query = next_query(lead, query))
        count++;
    items = count > 0 && *worker->record.sqlstate != '\0' ? calloc(count, sizeof(*items)) : NULL;
    if (items == NULL)
        return;
    count = 0;
    for (const struct query *query = first_query(lead); query != NULL;
         query = next_query(lead, query))
        items[count++] = (struct array_item){query->request->id, strlen(query->request->id)};
    worker->failure.ids = array_of_text(items, count, &worker->failure.length);
    snprintf(worker->failure.sqlstate, sizeof(worker->failure.sqlstate), "%s",
             worker->record.sqlstate);
    worker->record.is_reported = worker->failure.ids != NULL;
    free(items);
}

/*
 * After a run that failed. One that came later may have time left when that of the first is
 * over, and is asked again.
 */
static void fail(struct lead *lead, enum error error)
{
    struct worker *worker = lead->worker;
    const struct query *query = first_query(lead);

    if (query != NULL && error == ERROR_UNAVAILABLE &&
        clock_left(query->deadline) <= DATABASE_MARGIN_MS) {
        refuse_first(lead, query, error);
    } else {
        note_failure(lead);
        while ((query = first_query(lead)) != NULL)
            refuse_first(lead, query, error);
    }
    worker_log_failure(worker);
    record_begin(&worker->record, "");
}

static void give_turn_back(struct lead *lead)
{
    if (lead->has_turn)
        turns_give_back();
    lead->has_turn = false;
}

/* Ends the lead. Those that it has not answered ask again. */
static void end(struct lead *lead)
{
    const struct query *query;

    add_members(lead, shared_end(&lead->shared));
    while ((query = first_query(lead)) != NULL)
        put_back_first(lead, query);
}

/*
 * Streams the answer to the leader's own request, if that is what it has and there is a turn.
 * The lead ends, since that takes as long as the client does.
 */
static bool stream_own(struct lead *lead, struct answer *answer)
{
    struct query *own = lead->own;

    if (own == NULL || !answer_can_stream(answer, own->form))
        return false;
    lead->has_turn = lead->has_turn || turns_try(lead->worker->config);
    if (!lead->has_turn)
        return false;
    lead->own = NULL;
    end(lead);
    note_request(lead->worker, own);
    query_stream(lead->worker, own, answer);
    return true;
}

/* Answers all from one run; those that need another form than it could keep ask again. */
static void deliver(struct lead *lead, struct answer *answer)
{
    struct query *query;
    int count = 0;

    if (stream_own(lead, answer))
        return;
    /* Whole answers are sent without a connection. */
    worker_release(lead->worker);
    give_turn_back(lead);
    while ((query = first_query(lead)) != NULL) {
        if (!answer_is_whole(answer, query->form)) {
            put_back_first(lead, query);
            /* Another run would be in vain as well. */
            lead->is_last = true;
            continue;
        }
        worker_note_progress(lead->worker);
        note_request(lead->worker, query);
        metrics_add(METRIC_ANSWERS_SHARED, count++ > 0);
        query_send(lead->worker, query, answer);
        drop_first(lead);
    }
}

/* Runs the question once, for those that came before its statement. */
static void run(struct lead *lead)
{
    struct worker *worker = lead->worker;
    int64_t deadline = first_query(lead)->deadline;
    struct answer built = {.asked = NULL};
    bool is_wanted[ANSWER_FORMS] = {false};
    enum error error;

    worker_note_progress(worker);
    record_begin(&worker->record, first_query(lead)->request->id);
    lead->has_turn = lead->needs_turn && turns_take(worker->config, deadline);
    error = lead->has_turn == lead->needs_turn ? worker_error(worker_connect(worker, deadline))
                                               : ERROR_UNAVAILABLE;
    add_members(lead, shared_take(&lead->shared));
    for (const struct query *query = first_query(lead); query != NULL;
         query = next_query(lead, query))
        is_wanted[query->form] = true;
    if (error == ERROR_NONE)
        error = answer_build(&built, worker, lead->shared.asked, is_wanted, deadline);
    if (error == ERROR_NONE)
        deliver(lead, &built);
    else
        fail(lead, error);
    give_turn_back(lead);
    answer_free(&built);
}

/* What park needs. */
struct parking {
    struct worker *worker;
    const struct query *query;
};

static struct shared_member *park(void *context)
{
    const struct parking *parking = context;
    struct query *query = malloc(sizeof(*query));
    struct request *request = query != NULL ? worker_give_away(parking->worker) : NULL;

    if (request == NULL) {
        free(query);
        return NULL;
    }
    *query = *parking->query;
    query->request = request;
    query->asked.scope = scope_share(query->asked.scope);
    return &query->member;
}

void lead_answer(struct worker *worker, struct query *query)
{
    struct parking parking = {worker, query};
    const bool was_large = answer_was_large(&query->asked, query->form);
    struct lead lead = {
        .worker = worker, .own = query, .needs_turn = was_large, .is_last = was_large};

    if (!shared_lead(&lead.shared, &query->asked, was_large ? (int)query->form : SHARED_ANY_FORM,
                     park, &parking))
        return;
    do {
        run(&lead);
        if (lead.is_last)
            end(&lead);
        else
            add_members(&lead, first_query(&lead) != NULL ? shared_take(&lead.shared)
                                                          : shared_take_or_end(&lead.shared));
    } while (first_query(&lead) != NULL);
}
