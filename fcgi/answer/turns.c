#include "answer/turns.h"

#include "base/clock.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int taken;
static int waiting;

/* With more connections than workers, only as many are of use at a time. */
static bool is_free(const struct config *config)
{
    int used = config->connections < config->workers ? config->connections : config->workers;

    return taken < (used > 1 ? used / 2 : 1);
}

/* Together with those that stream, they leave a worker for other answers. */
static int most_waiting(const struct config *config)
{
    return config->workers > 4 ? config->workers / 4 : config->workers > 2;
}

bool turns_try(const struct config *config)
{
    bool is_taken;

    pthread_mutex_lock(&lock);
    is_taken = waiting == 0 && is_free(config);
    taken += is_taken;
    pthread_mutex_unlock(&lock);
    return is_taken;
}

bool turns_take(const struct config *config, int64_t deadline)
{
    bool is_taken;

    pthread_mutex_lock(&lock);
    if (is_free(config) || waiting < most_waiting(config)) {
        waiting++;
        while (!is_free(config) && clock_left(deadline) > 0)
            clock_wait(&changed, &lock, deadline);
        waiting--;
    }
    is_taken = is_free(config);
    taken += is_taken;
    pthread_mutex_unlock(&lock);
    return is_taken;
}

void turns_give_back(void)
{
    pthread_mutex_lock(&lock);
    taken--;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}
