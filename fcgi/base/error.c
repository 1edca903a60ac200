#include "base/error.h"

#include <string.h>

static const struct error_entry ENTRIES[ERROR_COUNT] = {
    [ERROR_NONE] = {200, "ok", ""},

    [ERROR_NOT_FOUND] = {404, "not_found", "There is nothing at this path."},
    [ERROR_METHOD_NOT_ALLOWED] =
        {405, "method_not_allowed",
         "This path does not allow that method; the Allow header lists the allowed methods."},
    [ERROR_PAYLOAD_TOO_LARGE] = {413, "payload_too_large",
                                 "The request body is larger than 5 MiB."},
    [ERROR_UNAVAILABLE] = {503, "unavailable",
                           "The service is temporarily unavailable; retry after the number of "
                           "seconds in Retry-After."},
    [ERROR_INTERNAL] = {500, "internal_error", "The server failed to process the request."},
    [ERROR_INVALID_REQUEST] = {400, "invalid_request",
                               "The request body is not a complete JSON array in UTF-8."},

    [ERROR_MISSING_SIGNATURE] = {401, "missing_auth",
                                 "The headers X-Source-ID and X-Signature are required."},
    [ERROR_UNKNOWN_SOURCE] = {401, "unknown_source",
                              "No public key is registered for this X-Source-ID."},
    [ERROR_INVALID_SIGNATURE] = {401, "invalid_signature",
                                 "X-Signature is not a valid Ed25519 signature of the body by a "
                                 "key of this source."},
    [ERROR_EMPTY_BATCH] = {400, "empty_batch", "The batch has no events."},
    [ERROR_BATCH_TOO_LARGE] =
        {400, "batch_too_large",
         "The batch has more than 1000 events, or more than 200000 objects and arrays."},

    [ERROR_INVALID_EVENT] = {422, "invalid_event",
                             "must be a JSON object of at most 65536 bytes and 32 levels."},
    [ERROR_INVALID_EVENT_ID] = {422, "invalid_event_id",
                                "id must be a string of at most 255 bytes: evt_ and at least one "
                                "more character, no control characters."},
    [ERROR_SOURCE_MISMATCH] = {422, "source_mismatch", "source must equal X-Source-ID."},
    [ERROR_INVALID_TIMESTAMP] = {422, "invalid_timestamp",
                                 "timestamp must be an RFC 3339 date-time with an offset, in the "
                                 "years 0001 to 9999."},
    [ERROR_INVALID_EVENT_TYPE] = {422, "invalid_event_type",
                                  "eventType (or type) must be session, activity, tool, agent, "
                                  "summary or error."},
    [ERROR_INVALID_PAYLOAD] = {422, "invalid_payload",
                               "payload must be a JSON object of strict JSON, without U+0000, lone "
                               "surrogates or numbers beyond a double's range."},

    [ERROR_MISSING_TOKEN] = {401, "missing_auth", "The Authorization header is required."},
    [ERROR_INVALID_TOKEN] = {401, "invalid_token",
                             "The Authorization header has no valid bearer token."},
    [ERROR_INVALID_DAYS] = {400, "invalid_days", "days must be 7 or 30."},
    [ERROR_INVALID_SOURCE] = {400, "invalid_source",
                              "source must be 1 to 255 bytes of UTF-8 without control characters."},
    [ERROR_INVALID_GROUP_BY] = {400, "invalid_group_by", "group_by must be hour or source."},
    [ERROR_INVALID_QUERY] =
        {400, "invalid_request",
         "The query string has an invalid percent-encoding, or a parameter twice."},
};

const struct error_entry *error_entry(enum error error)
{
    return &ENTRIES[error];
}

enum error error_of_event(const char *code, size_t length)
{
    for (enum error e = ERROR_INVALID_EVENT; e <= ERROR_INVALID_PAYLOAD; e++) {
        if (strlen(ENTRIES[e].code) == length && memcmp(ENTRIES[e].code, code, length) == 0)
            return e;
    }
    return ERROR_INVALID_EVENT;
}
