#include "answer/sizes.h"

#include <pthread.h>

enum { RECENT_MOST = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    struct question asked; /* days is 0 in an entry that is not used yet */
    struct {
        bool is_known;
        bool is_so;
    } sizes[SIZES];
} recent[RECENT_MOST];
static int next_recent;

static int find(const struct question *asked)
{
    int i = 0;

    while (i < RECENT_MOST && !question_equal(&recent[i].asked, asked))
        i++;
    return i;
}

void sizes_note(const struct question *asked, enum size size, bool is_so, bool otherwise)
{
    int i;

    pthread_mutex_lock(&lock);
    i = find(asked);
    if (i == RECENT_MOST && is_so != otherwise) {
        i = next_recent;
        next_recent = (next_recent + 1) % RECENT_MOST;
        scope_release(recent[i].asked.scope);
        recent[i].asked = *asked;
        recent[i].asked.scope = scope_share(asked->scope);
        for (int other = 0; other < SIZES; other++)
            recent[i].sizes[other].is_known = false;
    }
    if (i < RECENT_MOST) {
        recent[i].sizes[size].is_known = true;
        recent[i].sizes[size].is_so = is_so;
    }
    pthread_mutex_unlock(&lock);
}

bool sizes_expect(const struct question *asked, enum size size, bool otherwise)
{
    bool is_so = otherwise;
    int i;

    pthread_mutex_lock(&lock);
    i = find(asked);
    if (i < RECENT_MOST && recent[i].sizes[size].is_known)
        is_so = recent[i].sizes[size].is_so;
    pthread_mutex_unlock(&lock);
    return is_so;
}
