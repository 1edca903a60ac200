/*
 * How requests that ask the same at the same time (answer/shared.h) are answered: their leader
 * runs the question, and again as long as others have asked it meanwhile. If the answer was too
 * large to be built whole when it was last asked, the leader waits for a turn (answer/turns.h)
 * and runs it once.
 */
#ifndef STEEP_LEAD_H
#define STEEP_LEAD_H

#include "answer/query.h"
#include "process/worker.h"

/*
 * Answers a request, and if it leads the others as well; or parks it, for the leader to answer
 * it later: then the worker has no request in hand.
 */
void lead_answer(struct worker *worker, struct query *query);

#endif
