/* Lines of a file: what becomes a batch of them is exactly those that are valid by themselves. */
#include "fuzz.h"

#include "event/batch.h"
#include "import/lines.h"

static struct lines lines;

/* Splits the input as an import does, and remembers where each line is in it. */
static void add_lines(const char *text, size_t length, const char *places[LINES_EVENTS])
{
    const char *end = text + length;
    int64_t number = 0;
    char *to;

    lines_clear(&lines);
    while (text < end && (to = lines_next(&lines)) != NULL) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t count = (size_t)((newline != NULL ? newline : end) - text);
        size_t before = lines.count;

        memcpy(to, text, count);
        lines_add(&lines, count, ++number, ERROR_NONE);
        if (lines.count > before)
            places[before] = text;
        text += count + 1;
    }
}

/* A line as an array by itself. Caller frees. */
static char *enclose(const char *line, size_t length)
{
    char *array = malloc(length + 3);

    require(array != NULL, "there is memory");
    array[0] = '[';
    memcpy(array + 1, line, length);
    memcpy(array + 1 + length, "]", 2);
    return array;
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

/* The line must be the event, with white space around it. */
static void check_event(const struct scan_event *event, const char *line, size_t length)
{
    while (length > 0 && is_space(*line)) {
        line++;
        length--;
    }
    while (length > 0 && is_space(line[length - 1]))
        length--;
    require(event->length == length && memcmp(event->text, line, length) == 0,
            "an event of the batch is its line");
}

static void check_batch(const char *places[LINES_EVENTS])
{
    static struct batch batch;
    char *body = copy_text(lines.text, lines.length);
    size_t valid = 0;

    if (lines.valid > 0)
        require(batch_split(&batch, body, lines.length) == ERROR_NONE && batch.count == lines.valid,
                "the valid lines are a batch");
    for (size_t i = 0; i < lines.count; i++) {
        const struct lines_event *event = &lines.events[i];

        if (event->error == ERROR_NONE)
            check_event(&batch.events[valid++], places[i], event->length);
    }
    require(valid == lines.valid, "the valid lines are counted");
    free(body);
}

/* No line may change the verdict on another, or what another is by itself. */
static void check_each(const char *places[LINES_EVENTS])
{
    for (size_t i = 0; i < lines.count; i++) {
        const struct lines_event *event = &lines.events[i];
        char *alone = enclose(places[i], event->length);

        require(batch_check_single(alone, event->length + 2) == event->error,
                "a line gets the verdict that it gets alone");
        if (event->error == ERROR_NONE) {
            size_t length;
            const char *single = lines_single(&lines, i, &length);

            require(length == event->length + 2 && memcmp(single, alone, length) == 0,
                    "a valid line can be had alone");
        }
        free(alone);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *places[LINES_EVENTS];
    char *text = copy_bytes(data, size);

    add_lines(text, size, places);
    lines_check(&lines);
    check_batch(places);
    check_each(places);
    free(text);
    return 0;
}
