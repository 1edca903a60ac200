#include "http/reply.h"

#include <sodium.h>
#include <string.h>

enum { RETRY_AFTER_MOST = 5 }; /* seconds; random, so that clients do not all come back at once */

void reply_add_error(struct buffer *out, enum error error)
{
    const struct error_entry *entry = error_entry(error);

    buffer_printf(out, "{\"error\":\"%s\",\"message\":\"%s\"}", entry->code, entry->message);
}

enum error reply_settle(struct buffer *out, enum error error)
{
    if (!out->is_short)
        return error;
    buffer_free(out);
    reply_add_error(out, ERROR_INTERNAL);
    return ERROR_INTERNAL;
}

static void put_headers(FCGX_Stream *out, enum error error, const char *allow, const char *type,
                        size_t length)
{
    const struct error_entry *entry = error_entry(error);

    /* nginx 1.22 copies this: without a reason its status line lacks a space (RFC 9112, 4). */
    FCGX_FPrintF(out, "Status: %d %s\r\nContent-Type: %s\r\nContent-Length: %lu\r\n", entry->status,
                 entry->code, type, (unsigned long)length);
    if (error == ERROR_METHOD_NOT_ALLOWED)
        FCGX_FPrintF(out, "Allow: %s\r\n", allow);
    else if (error == ERROR_UNAVAILABLE)
        FCGX_FPrintF(out, "Retry-After: %lu\r\n",
                     1 + (unsigned long)randombytes_uniform(RETRY_AFTER_MOST));
    else if (error == ERROR_MISSING_TOKEN)
        FCGX_FPrintF(out, "WWW-Authenticate: Bearer\r\n");
    else if (error == ERROR_INVALID_TOKEN)
        FCGX_FPrintF(out, "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n");
    FCGX_PutStr("\r\n", 2, out);
}

bool reply_send_as(struct request *request, enum error error, const char *allow, const char *type,
                   const struct buffer *body)
{
    FCGX_Stream *out = request->fcgi.out;
    const char *method = request_parameter(request, "REQUEST_METHOD");

    put_headers(out, error, allow, type, body->length);
    if (body->length > 0 && (method == NULL || strcmp(method, "HEAD") != 0))
        FCGX_PutStr(body->text, (int)body->length, out);
    return FCGX_FFlush(out) == 0 && FCGX_GetError(out) == 0;
}

bool reply_send(struct request *request, enum error error, const char *allow,
                const struct buffer *body)
{
    return reply_send_as(request, error, allow, "application/json", body);
}
