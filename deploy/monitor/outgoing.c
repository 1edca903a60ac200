#include "outgoing.h"

#include "complete.h"

#include <string.h>

void outgoing_clear(struct outgoing *outgoing)
{
    outgoing->count = outgoing->length = 0;
    outgoing->refused = -1;
}

bool outgoing_add(struct outgoing *outgoing, int64_t serial, const char *text, size_t length,
                  const char *source, const char *timestamp)
{
    char members[COMPLETE_MEMBERS_BYTES];
    size_t added = 0;
    char *at;

    if (source != NULL)
        added = complete_member(members, added, "source", source);
    if (timestamp != NULL)
        added = complete_member(members, added, "timestamp", timestamp);
    /* The bracket or comma before it, and the bracket behind it. */
    if (outgoing->count == BATCH_EVENTS ||
        outgoing->length + added + length + 2 > sizeof(outgoing->body))
        return false;
    at = outgoing->body + (outgoing->count == 0 ? 0 : outgoing->length - 1);
    *at++ = outgoing->count == 0 ? '[' : ',';
    *at++ = *text; /* its brace */
    memcpy(at, members, added);
    memcpy(at + added, text + 1, length - 1);
    at[added + length - 1] = ']';
    outgoing->length = (size_t)(at + added + length - outgoing->body);
    outgoing->serials[outgoing->count++] = serial;
    return true;
}
