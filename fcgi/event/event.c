#include "event/event.h"

#include "base/utf8.h"
#include "event/rfc3339.h"

#include <stdint.h>
#include <string.h>

bool event_text_equals(const struct event_text *text, const char *other, size_t length)
{
    return text->text != NULL && text->length == length && memcmp(text->text, other, length) == 0;
}

static bool is_id(const struct event_text *id)
{
    static const char PREFIX[] = "evt_";

    return id->text != NULL && id->length > strlen(PREFIX) && id->length <= EVENT_ID_BYTES &&
           memcmp(id->text, PREFIX, strlen(PREFIX)) == 0 &&
           !utf8_has_control((const unsigned char *)id->text, id->length);
}

static bool is_source(const struct event_text *source)
{
    return source->text != NULL && source->length > 0 && source->length <= EVENT_SOURCE_BYTES &&
           !utf8_has_control((const unsigned char *)source->text, source->length);
}

static bool is_timestamp(const struct event_text *timestamp)
{
    int64_t ignored;

    return timestamp->text != NULL && rfc3339_parse(timestamp->text, timestamp->length, &ignored);
}

static bool is_type(const struct event_text *type)
{
    static const char *const TYPES[] = {"session", "activity", "tool", "agent", "summary", "error"};

    for (size_t i = 0; i < sizeof(TYPES) / sizeof(TYPES[0]); i++) {
        if (event_text_equals(type, TYPES[i], strlen(TYPES[i])))
            return true;
    }
    return false;
}

enum error event_check(const struct event *event, const struct event_text *source)
{
    if (!is_id(&event->id))
        return ERROR_INVALID_EVENT_ID;
    if (source == NULL && !is_source(&event->source))
        return ERROR_INVALID_SOURCE;
    if (source != NULL && !event_text_equals(&event->source, source->text, source->length))
        return ERROR_SOURCE_MISMATCH;
    if (!is_timestamp(&event->timestamp))
        return ERROR_INVALID_TIMESTAMP;
    if (!is_type(&event->type))
        return ERROR_INVALID_EVENT_TYPE;
    if (!event->has_payload)
        return ERROR_INVALID_PAYLOAD;
    return ERROR_NONE;
}
