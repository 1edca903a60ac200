#include "http/reply.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_BYTES = 1024,
    KEPT_BYTES = 1024 * 1024,
    INTEGER_BYTES = sizeof("-9223372036854775808"),
    RETRY_AFTER_MOST = 5, /* seconds; random, so that clients do not all come back at once */
};

/* Makes room for so many bytes more and a terminator. */
static bool grow(struct reply_text *out, size_t more)
{
    size_t size = out->size > 0 ? out->size : FIRST_BYTES;
    char *text;

    if (out->is_short)
        return false;
    while (size - out->length <= more)
        size *= 2;
    if (size == out->size)
        return true;
    text = realloc(out->text, size);
    if (text == NULL) {
        out->is_short = true;
        return false;
    }
    out->text = text;
    out->size = size;
    return true;
}

void reply_add(struct reply_text *out, const char *text, size_t length)
{
    if (!grow(out, length))
        return;
    memcpy(out->text + out->length, text, length);
    out->length += length;
    out->text[out->length] = '\0';
}

void reply_add_text(struct reply_text *out, const char *text)
{
    reply_add(out, text, strlen(text));
}

void reply_add_integer(struct reply_text *out, int64_t value)
{
    char digits[INTEGER_BYTES];
    char *at = digits + sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0)
        *--at = '-';
    reply_add(out, at, (size_t)(digits + sizeof(digits) - at));
}

void reply_printf(struct reply_text *out, const char *format, ...)
{
    va_list args;
    char text[1024]; /* longer than any sentence of ours */
    int length;

    va_start(args, format);
    length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < sizeof(text))
        reply_add(out, text, (size_t)length);
    else
        out->is_short = true;
}

void reply_add_string(struct reply_text *out, const char *text, size_t length)
{
    size_t done = 0;

    reply_add(out, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        reply_add(out, text + done, i - done);
        reply_printf(out, "\\u%04x", c);
        done = i + 1;
    }
    reply_add(out, text + done, length - done);
    reply_add(out, "\"", 1);
}

void reply_reset(struct reply_text *out)
{
    if (out->size > KEPT_BYTES)
        reply_free(out);
    out->length = 0;
    out->is_short = false;
}

void reply_free(struct reply_text *out)
{
    free(out->text);
    *out = (struct reply_text){0};
}

void reply_add_error(struct reply_text *out, enum error error)
{
    const struct error_entry *entry = error_entry(error);

    reply_printf(out, "{\"error\":\"%s\",\"message\":\"%s\"}", entry->code, entry->message);
}

enum error reply_settle(struct reply_text *out, enum error error)
{
    if (!out->is_short)
        return error;
    reply_free(out);
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
                   const struct reply_text *body)
{
    FCGX_Stream *out = request->fcgi.out;
    const char *method = request_parameter(request, "REQUEST_METHOD");

    put_headers(out, error, allow, type, body->length);
    if (body->length > 0 && (method == NULL || strcmp(method, "HEAD") != 0))
        FCGX_PutStr(body->text, (int)body->length, out);
    return FCGX_FFlush(out) == 0 && FCGX_GetError(out) == 0;
}

bool reply_send(struct request *request, enum error error, const char *allow,
                const struct reply_text *body)
{
    return reply_send_as(request, error, allow, "application/json", body);
}
