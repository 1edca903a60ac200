#include "db/canceller.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* For the answer of a statement that was cancelled, before the next try. */
enum { CANCEL_MS = 2000 };

struct canceller {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_t thread;
    bool is_ending;
    void (*give_back)(void *context, struct database *db);
    void *context;
    int count;
    struct database *late[];
};

static void *cancel_late(void *arg)
{
    struct canceller *canceller = arg;

    pthread_mutex_lock(&canceller->lock);
    while (!canceller->is_ending) {
        struct database *db;

        if (canceller->count == 0) {
            pthread_cond_wait(&canceller->work, &canceller->lock);
            continue;
        }
        db = canceller->late[0];
        canceller->count--;
        memmove(canceller->late, canceller->late + 1,
                (size_t)canceller->count * sizeof(struct database *));
        pthread_mutex_unlock(&canceller->lock);
        database_cancel(db, clock_ms() + CANCEL_MS);
        canceller->give_back(canceller->context, db);
        pthread_mutex_lock(&canceller->lock);
    }
    pthread_mutex_unlock(&canceller->lock);
    return NULL;
}

struct canceller *
canceller_new(int connections, void (*give_back)(void *context, struct database *db), void *context)
{
    struct canceller *canceller =
        calloc(1, sizeof(*canceller) + (size_t)connections * sizeof(struct database *));

    if (canceller == NULL)
        return NULL;
    canceller->give_back = give_back;
    canceller->context = context;
    pthread_mutex_init(&canceller->lock, NULL);
    pthread_cond_init(&canceller->work, NULL);
    if (pthread_create(&canceller->thread, NULL, cancel_late, canceller) == 0)
        return canceller;
    free(canceller);
    return NULL;
}

void canceller_add(struct canceller *canceller, struct database *db)
{
    pthread_mutex_lock(&canceller->lock);
    canceller->late[canceller->count++] = db;
    pthread_cond_signal(&canceller->work);
    pthread_mutex_unlock(&canceller->lock);
}

bool canceller_free(struct canceller *canceller)
{
    if (canceller == NULL)
        return true;
    pthread_mutex_lock(&canceller->lock);
    canceller->is_ending = true;
    pthread_cond_signal(&canceller->work);
    pthread_mutex_unlock(&canceller->lock);
    if (!clock_join(canceller->thread, clock_ms() + 2 * CANCEL_MS))
        return false;
    pthread_cond_destroy(&canceller->work);
    pthread_mutex_destroy(&canceller->lock);
    free(canceller);
    return true;
}
