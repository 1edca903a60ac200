/*
 * ingest.fcgi: stores signed batches of events, by the data model's bulk_insert_events or, if
 * several wait, by bulk_insert_batches.
 * README.md describes the HTTP side.
 */
#include "auth/signature.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "db/array.h"
#include "db/group.h"
#include "event/batch.h"
#include "import/import.h"
#include "process/service.h"

#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char ALLOW[] = "POST, OPTIONS";
static const char USAGE[] = "usage: ingest.fcgi [-t | -V | --check-key KEY | --import [--quiet]]\n"
                            "Serves FastCGI on a listening socket that it inherits.\n";

enum {
    DATABASE_WAIT_SECONDS = 8,
    FOREIGN_IDS_MS = 2000, /* for the statement after the reply */
};

/* What its reply and its line in the log need to know of a request. */
struct ingest {
    size_t source_length;
    char source[KEYRING_SOURCE_BYTES];
    bool is_verified;
    struct batch *batch; /* NULL unless it is being checked, or has events that were rejected */
    size_t events;
    int64_t inserted;
};

/*
 * Checks that a key of the source signed the body, which is read only after the source
 * is known and the signature well-formed. An error of 401, or ERROR_UNAVAILABLE before
 * the first snapshot of the keys.
 */
static enum error authenticate(struct worker *worker, struct request *request, size_t body_length,
                               struct ingest *ingest)
{
    const char *source = request_parameter(request, "HTTP_X_SOURCE_ID");
    const char *text = request_parameter(request, "HTTP_X_SIGNATURE");
    unsigned char keys[KEYRING_KEYS_FOUND][SIGNATURE_KEY_BYTES];
    unsigned char signature[SIGNATURE_BYTES];
    size_t key_count;
    bool is_complete;
    int64_t begun;
    enum error error;

    if (source == NULL || *source == '\0' || text == NULL || *text == '\0')
        return ERROR_MISSING_SIGNATURE;
    if (strlen(source) > sizeof(ingest->source))
        return ERROR_UNKNOWN_SOURCE;
    ingest->source_length = strlen(source);
    memcpy(ingest->source, source, ingest->source_length);

    key_count =
        keyring_find_keys(worker->keyring, source, ingest->source_length, keys, &is_complete);
    if (key_count == 0)
        return is_complete ? ERROR_UNKNOWN_SOURCE : ERROR_UNAVAILABLE;
    if (!signature_decode(text, strlen(text), signature))
        return ERROR_INVALID_SIGNATURE;
    error = request_read_body(request, body_length, worker_deadline(worker, request));
    if (error != ERROR_NONE)
        return error;
    begun = clock_us();
    ingest->is_verified = signature_verify(signature, (const unsigned char *)request->body,
                                           request->body_length, keys, key_count);
    metrics_observe(METRICS_VERIFICATION, clock_us() - begun);
    if (!ingest->is_verified)
        return is_complete ? ERROR_INVALID_SIGNATURE : ERROR_UNAVAILABLE;
    return ERROR_NONE;
}

/* Finds the events of the body. The batch, 150 KB, is only in memory while it is needed. */
static enum error split(const struct request *request, struct ingest *ingest)
{
    enum error error = ERROR_INTERNAL;

    ingest->batch = malloc(sizeof(*ingest->batch));
    if (ingest->batch != NULL)
        error = batch_split(ingest->batch, request->body, request->body_length);
    return error;
}

static void forget(struct ingest *ingest)
{
    free(ingest->batch);
    ingest->batch = NULL;
}

/*
 * After the database refused the batch: asks it about each event alone, and rejects those
 * that it names (422). If it names none, the batch as a whole is invalid (400).
 */
static enum error find_invalid(struct worker *worker, const struct request *request,
                               struct batch *batch)
{
    struct array_item *texts = calloc(batch->count, sizeof(*texts));
    struct database_parameter parameter = {DATABASE_TEXT_ARRAY, NULL, 0};
    unsigned char *array = NULL;
    enum error error;
    enum database_verdict verdict;

    if (texts == NULL)
        return ERROR_INTERNAL;
    for (size_t i = 0; i < batch->count; i++)
        texts[i] = (struct array_item){batch->events[i].text, batch->events[i].length};
    array = array_of_text(texts, batch->count, &parameter.length);
    free(texts);
    if (array == NULL)
        return ERROR_INTERNAL;

    parameter.value = array;
    verdict = worker_call(worker,
                          "SELECT index, error FROM public.find_invalid_events($1)"
                          " ORDER BY index",
                          &parameter, 1, worker_deadline(worker, request));
    free(array);
    error = worker_error(verdict);
    if (verdict == DATABASE_DONE) {
        for (int row = 0; row < database_rows(worker->db); row++) {
            size_t length;
            const char *code = database_bytes(worker->db, row, 1, &length);

            batch_reject(batch, (size_t)database_integer(worker->db, row, 0),
                         error_of_event(code, length));
        }
        error = batch->rejected_count > 0 ? batch->rejected[0].error : ERROR_INVALID_REQUEST;
    }
    worker_release(worker);
    return error;
}

/* Stores the batch whole, or not at all. */
static enum error store(struct worker *worker, const struct request *request, struct ingest *ingest)
{
    struct group_batch batch = {.body = request->body,
                                .length = request->body_length,
                                .events = ingest->events,
                                .deadline = worker_deadline(worker, request),
                                .record = &worker->record};

    group_store(worker->pool, &batch);
    worker->db = batch.db;
    worker->failure = batch.failure;
    if (batch.verdict == DATABASE_REFUSED) {
        enum error error = split(request, ingest);

        return error == ERROR_NONE ? find_invalid(worker, request, ingest->batch) : error;
    }
    ingest->inserted = batch.inserted;
    return worker_error(batch.verdict);
}

/* The contract's ladder: the first check that fails answers. */
static enum error take_batch(struct worker *worker, struct request *request, struct ingest *ingest)
{
    size_t length;
    enum error error = request_expect_method(request, "POST", NULL);

    if (error == ERROR_NONE)
        error = request_body_length(request, BATCH_BODY_BYTES, &length);
    if (error == ERROR_NONE)
        error = worker_check_deadline(worker, request);
    if (error == ERROR_NONE)
        error = authenticate(worker, request, length, ingest);
    if (error == ERROR_NONE)
        error = split(request, ingest);
    if (error == ERROR_NONE) {
        ingest->events = ingest->batch->count;
        error = batch_check(ingest->batch, ingest->source, ingest->source_length);
    }
    if (error == ERROR_NONE) {
        forget(ingest);
        error = store(worker, request, ingest);
    }
    return error;
}

/* The body of a 422: error and index of the first invalid event, and a list of all. */
static void write_rejected(struct buffer *out, const struct batch *batch)
{
    const struct batch_rejection *first = &batch->rejected[0];
    const struct error_entry *entry = error_entry(first->error);

    buffer_printf(out,
                  "{\"error\":\"%s\",\"message\":\"Event %zu: %s\",\"index\":%zu,\"rejected\":[",
                  entry->code, first->index, entry->message, first->index);
    for (size_t i = 0; i < batch->rejected_count; i++) {
        const struct batch_rejection *rejected = &batch->rejected[i];

        entry = error_entry(rejected->error);
        buffer_printf(out, "%s{\"index\":%zu,\"error\":\"%s\",\"message\":\"Event %zu: %s\"}",
                      i > 0 ? "," : "", rejected->index, entry->code, rejected->index,
                      entry->message);
    }
    buffer_printf(out, "]}");
}

/* The batch with the rejected events that an error is about; NULL for other errors. */
static const struct batch *rejected_batch(const struct ingest *ingest, enum error error)
{
    return error_entry(error)->status == 422 ? ingest->batch : NULL;
}

static void write_reply(struct buffer *out, const struct ingest *ingest, enum error error)
{
    const struct batch *rejected = rejected_batch(ingest, error);
    long long events = (long long)ingest->events;
    long long inserted = (long long)ingest->inserted;

    buffer_reset(out);
    if (error == ERROR_NONE)
        buffer_printf(out,
                      "{\"inserted\":%lld,\"duplicates\":%lld,\"message\":\"Stored %lld of %lld "
                      "events; %lld were already stored.\"}",
                      inserted, events - inserted, inserted, events, events - inserted);
    else if (rejected != NULL)
        write_rejected(out, rejected);
    else
        reply_add_error(out, error);
}

/* Counts a verified batch and its events by result. */
static void count_batch(const struct ingest *ingest, enum error error)
{
    const struct batch *rejected = rejected_batch(ingest, error);
    uint64_t events = ingest->events;
    uint64_t inserted = (uint64_t)ingest->inserted;
    uint64_t refused = rejected != NULL ? rejected->rejected_count : 0;

    if (!ingest->is_verified)
        return;
    for (size_t i = 0; i < refused; i++)
        metrics_count_refused(rejected->rejected[i].error);
    if (error == ERROR_NONE) {
        metrics_add(METRIC_BATCHES_STORED, 1);
        metrics_add(METRIC_EVENTS_INSERTED, inserted);
        metrics_add(METRIC_EVENTS_DUPLICATE, events - inserted);
        return;
    }
    metrics_add(error == ERROR_UNAVAILABLE ? METRIC_BATCHES_UNAVAILABLE
                : error == ERROR_INTERNAL  ? METRIC_BATCHES_FAILED
                                           : METRIC_BATCHES_REFUSED,
                1);
    metrics_add(METRIC_EVENTS_REFUSED, refused);
    metrics_add(METRIC_EVENTS_NOT_STORED, events - refused);
}

static void log_request(const struct worker *worker, const struct request *request,
                        const struct ingest *ingest, enum error error, bool is_delivered)
{
    struct log_line line;

    if (!worker_log_begin(&line, worker, request, error, ingest->is_verified))
        return;
    if (ingest->source_length > 0)
        log_bytes(&line, "source", ingest->source, ingest->source_length);
    if (ingest->events > 0)
        log_number(&line, "events", (long long)ingest->events);
    if (error == ERROR_NONE)
        log_number(&line, "inserted", ingest->inserted);
    log_number(&line, "bytes", (long long)request->body_length);
    worker_log_end(&line, request, is_delivered ? NULL : "lost");
}

/* Ids are unique across sources: logs how many of a batch are stored under another source. */
static void log_foreign_ids(struct worker *worker, const struct request *request,
                            const struct ingest *ingest)
{
    const struct database_parameter body = {DATABASE_TEXT, request->body, request->body_length};
    struct log_line line;
    enum database_verdict verdict =
        worker_call(worker, "SELECT public.count_foreign_ids($1::text::jsonb)", &body, 1,
                    clock_ms() + FOREIGN_IDS_MS);

    int64_t count = verdict == DATABASE_DONE ? database_integer(worker->db, 0, 0) : 0;

    worker_release(worker);
    if (verdict == DATABASE_DONE && count == 0)
        return;
    metrics_add(METRIC_FOREIGN_IDS, (uint64_t)count);
    log_begin(&line, LOG_WARNING, "foreign_ids");
    log_string(&line, "request_id", request->id);
    log_bytes(&line, "source", ingest->source, ingest->source_length);
    if (verdict == DATABASE_DONE)
        log_number(&line, "count", count);
    else
        log_string(&line, "detail", "could not compare the duplicates with what is stored");
    if (*worker->record.sqlstate != '\0')
        log_string(&line, "sqlstate", worker->record.sqlstate);
    log_end(&line);
}

static void answer(struct worker *worker, struct request *request)
{
    struct ingest ingest = {0};
    enum error error = take_batch(worker, request, &ingest);
    bool is_delivered;

    write_reply(&worker->reply, &ingest, error);
    error = reply_settle(&worker->reply, error);
    is_delivered = reply_send(request, error, ALLOW, &worker->reply);
    worker_count(worker, request, error);
    count_batch(&ingest, error);
    forget(&ingest);
    log_request(worker, request, &ingest, error, is_delivered);
    if (error == ERROR_NONE && ingest.inserted < (int64_t)ingest.events) {
        /* The monitor has its answer and need not wait for this. */
        request_finish(request);
        log_foreign_ids(worker, request, &ingest);
    }
}

/* For steepctl: whether libsodium accepts a public key, and the key as base64 of its 32 bytes. */
static int check_key(const char *text)
{
    unsigned char key[SIGNATURE_KEY_BYTES];
    char normal[SIGNATURE_KEY_TEXT_BYTES + 1];

    if (sodium_init() < 0 || !signature_parse_key(text, strlen(text), key)) {
        fputs("not an Ed25519 public key: expected the base64 of its 32 bytes, or of the 44 bytes "
              "of its SubjectPublicKeyInfo\n",
              stderr);
        return EXIT_FAILURE;
    }
    signature_format_key(key, normal);
    puts(normal);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static const struct service SERVICE = {
        .program = {.name = "ingest.fcgi",
                    .endpoint = "ingest",
                    .takes_batches = true,
                    .errors = {ERROR_MISSING_SIGNATURE, ERROR_INVALID_PAYLOAD}},
        .usage = USAGE,
        .wait_seconds = DATABASE_WAIT_SECONDS,
        .variable = "VIBETEA_PUBLIC_KEYS",
        .add_credentials = keyring_add_public_keys,
        .plan = &REFRESH_KEYS,
        .probe = {"ingest probe", "SELECT FROM public.bulk_insert_events('[]')"},
        .answer = answer,
    };

    if (argc == 3 && strcmp(argv[1], "--check-key") == 0)
        return check_key(argv[2]);
    if (argc == 2 && strcmp(argv[1], "--import") == 0)
        return import_main(false);
    if (argc == 3 && strcmp(argv[1], "--import") == 0 && strcmp(argv[2], "--quiet") == 0)
        return import_main(true);
    return service_main(&SERVICE, argc, argv);
}
