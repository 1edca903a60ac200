#include "answer/shared.h"

#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared *leaders;
static int parked;

static struct shared *find(const struct question *asked, int form)
{
    struct shared *shared = leaders;

    while (shared != NULL && !(shared->form == form && question_equal(shared->asked, asked)))
        shared = shared->next;
    return shared;
}

static bool join(struct shared *shared, struct shared_member *(*park)(void *context), void *context)
{
    struct shared_member *member = parked < SHARED_PARKED_MOST ? park(context) : NULL;

    if (member == NULL)
        return false;
    member->next = NULL;
    *shared->last = member;
    shared->last = &member->next;
    parked++;
    return true;
}

bool shared_lead(struct shared *shared, const struct question *asked, int form,
                 struct shared_member *(*park)(void *context), void *context)
{
    struct shared *other;
    bool is_leader = true;

    *shared = (struct shared){.asked = asked, .form = form};
    shared->last = &shared->first;
    pthread_mutex_lock(&lock);
    other = find(asked, form);
    if (other != NULL) {
        /* One that can't be parked leads, and nobody follows it. */
        is_leader = !join(other, park, context);
    } else {
        shared->is_listed = true;
        shared->next = leaders;
        leaders = shared;
    }
    pthread_mutex_unlock(&lock);
    return is_leader;
}

static struct shared_member *take(struct shared *shared)
{
    struct shared_member *members = shared->first;

    for (const struct shared_member *member = members; member != NULL; member = member->next)
        parked--;
    shared->first = NULL;
    shared->last = &shared->first;
    return members;
}

static void unlist(struct shared *shared)
{
    struct shared **link = &leaders;

    if (!shared->is_listed)
        return;
    while (*link != shared)
        link = &(*link)->next;
    *link = shared->next;
    shared->is_listed = false;
}

struct shared_member *shared_take(struct shared *shared)
{
    struct shared_member *members;

    pthread_mutex_lock(&lock);
    members = take(shared);
    pthread_mutex_unlock(&lock);
    return members;
}

struct shared_member *shared_take_or_end(struct shared *shared)
{
    struct shared_member *members;

    pthread_mutex_lock(&lock);
    members = take(shared);
    if (members == NULL)
        unlist(shared);
    pthread_mutex_unlock(&lock);
    return members;
}

struct shared_member *shared_end(struct shared *shared)
{
    struct shared_member *members;

    pthread_mutex_lock(&lock);
    members = take(shared);
    unlist(shared);
    pthread_mutex_unlock(&lock);
    return members;
}
