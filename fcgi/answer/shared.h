/*
 * Requests that ask the same at the same time: one of them leads, and the others are parked,
 * without a worker. The leader runs the question for those that came before its statement
 * began. What comes later counts on what was stored meanwhile, and is left to its next run.
 * Any thread may call this.
 */
#ifndef STEEP_SHARED_H
#define STEEP_SHARED_H

#include "answer/question.h"
#include "base/attributes.h"

#include <stdbool.h>

/* More are not parked: each of them has a connection of nginx, and some 20 KiB. */
enum { SHARED_PARKED_MOST = 512 };

/* Of a lead whose answer is for all forms (enum answer_form). */
enum { SHARED_ANY_FORM = -1 };

/* One that is parked. Its owner puts it into what it needs to answer it. */
struct shared_member {
    struct shared_member *next;
};

/* A question under way, on its leader's stack. */
struct shared {
    const struct question *asked; /* of a leader; it must outlive its lead */
    int form;                     /* the only one, or SHARED_ANY_FORM */
    struct shared_member *first;  /* who waits for the next run */
    struct shared_member **last;  /* where the next one is added */
    bool is_listed;               /* others can join */
    struct shared *next;          /* of another question */
};

/*
 * Makes the caller the leader of a question in a form, unless it is under way and park, called
 * with context under a lock, makes a member of the caller. True for a leader, which must go on
 * until shared_take_or_end has returned NULL, or shared_end was called.
 */
bool shared_lead(struct shared *shared, const struct question *asked, int form,
                 struct shared_member *(*park)(void *context), void *context) MUST_CHECK;

/* Gives those that wait to the leader, in the order of their arrival; NULL for nobody. */
struct shared_member *shared_take(struct shared *shared) MUST_CHECK;

/*
 * The same, but ends the lead, so that the next one who asks will lead: if nobody waits,
 * or at once.
 */
struct shared_member *shared_take_or_end(struct shared *shared) MUST_CHECK;
struct shared_member *shared_end(struct shared *shared) MUST_CHECK;

#endif
