#include "http/reply.h"

#include <sodium.h>

static const char JSON[] = "application/json";

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

static void put_status(FCGX_Stream *out, enum error error, const char *type)
{
    const struct error_entry *entry = error_entry(error);

    /* nginx 1.22 copies this: without a reason its status line lacks a space (RFC 9112, 4). */
    FCGX_FPrintF(out, "Status: %d %s\r\nContent-Type: %s\r\n", entry->status, entry->code, type);
}

static void put_headers(FCGX_Stream *out, enum error error, const char *allow, const char *type,
                        size_t length)
{
    put_status(out, error, type);
    FCGX_FPrintF(out, "Content-Length: %lu\r\n", (unsigned long)length);
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

static bool flush(struct request *request)
{
    return FCGX_FFlush(request->fcgi.out) == 0 && FCGX_GetError(request->fcgi.out) == 0;
}

static void put_coding(FCGX_Stream *out, enum reply_coding coding)
{
    if (coding == REPLY_GZIP)
        FCGX_FPrintF(out, "Content-Encoding: gzip\r\n");
    if (coding != REPLY_UNCODED)
        FCGX_FPrintF(out, "Vary: Accept-Encoding\r\n");
}

static void put(struct request *request, const struct buffer *body)
{
    if (body->length > 0 && !request_is_head(request))
        FCGX_PutStr(body->text, (int)body->length, request->fcgi.out);
}

bool reply_send_coded(struct request *request, enum reply_coding coding, const struct buffer *body)
{
    FCGX_Stream *out = request->fcgi.out;

    put_status(out, ERROR_NONE, JSON);
    put_coding(out, coding);
    FCGX_FPrintF(out, "Content-Length: %lu\r\n\r\n", (unsigned long)body->length);
    put(request, body);
    return flush(request);
}

bool reply_begin(struct request *request, enum reply_coding coding)
{
    FCGX_Stream *out = request->fcgi.out;

    put_status(out, ERROR_NONE, JSON);
    put_coding(out, coding);
    FCGX_PutStr("\r\n", 2, out);
    return flush(request);
}

bool reply_add(struct request *request, const struct buffer *part)
{
    put(request, part);
    return flush(request);
}

bool reply_send_as(struct request *request, enum error error, const char *allow, const char *type,
                   const struct buffer *body)
{
    put_headers(request->fcgi.out, error, allow, type, body->length);
    put(request, body);
    return flush(request);
}

bool reply_send(struct request *request, enum error error, const char *allow,
                const struct buffer *body)
{
    return reply_send_as(request, error, allow, JSON, body);
}
