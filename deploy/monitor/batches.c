/* The sender's half of the spool: loads batches and settles them. */
#include "base/log.h"
#include "spool.h"

#include <stdio.h>
#include <string.h>

int spool_next_lane(struct spool *spool, int64_t after, struct lane *lane)
{
    sqlite3_stmt *query;
    int code;

    if (!spool_is_open(spool))
        return -1;
    query = sql_prepare(spool->database,
                        "SELECT id, source, name, boot, began, waiting, accepted FROM lanes"
                        " WHERE id > ? AND waiting > 0 ORDER BY id LIMIT 1",
                        "i", after);
    code = sqlite3_step(query);
    if (code == SQLITE_ROW) {
        *lane = (struct lane){
            .id = sqlite3_column_int64(query, 0),
            .began = sqlite3_column_int64(query, 4),
            .waiting = sqlite3_column_int64(query, 5),
            .accepted = sqlite3_column_int64(query, 6),
        };
        snprintf(lane->source, sizeof(lane->source), "%s", sql_text(query, 1));
        snprintf(lane->name, sizeof(lane->name), "%s", sql_text(query, 2));
        snprintf(lane->boot, sizeof(lane->boot), "%s", sql_text(query, 3));
    }
    sqlite3_finalize(query);
    if (code == SQLITE_ROW || code == SQLITE_DONE)
        return code == SQLITE_ROW;
    (void)!spool_end(spool, false);
    return -1;
}

/* Finds out when an undated lane's boot began: as the clock says now, unless it is known. */
static bool find_began(struct spool *spool, struct lane *lane)
{
    if (lane->boot[0] == '\0' || lane->began != 0)
        return true;
    lane->began = moment_now() - moment_uptime();
    if (strcmp(lane->boot, spool->boot) != 0) {
        log_event(LOG_WARNING, "clock_unknown",
                  "the clock was never set during an earlier boot; its events get the time at "
                  "which this one began");
        if (!sql_change(spool->database, "UPDATE events SET time = 0 WHERE lane = ?", "i",
                        lane->id))
            return false;
    }
    return sql_change(spool->database, "UPDATE lanes SET began = ? WHERE id = ?", "ii", lane->began,
                      lane->id);
}

/* Appends an event to the batch; false if the batch is full. */
static bool add(const struct lane *lane, sqlite3_stmt *row, struct outgoing *outgoing)
{
    const int64_t serial = sqlite3_column_int64(row, 0);
    const char *text = sqlite3_column_blob(row, 3);
    const size_t length = (size_t)sqlite3_column_bytes(row, 3);
    struct stamp stamp = {0};

    if (lane->boot[0] != '\0')
        complete_stamp(&stamp, lane->began + sqlite3_column_int64(row, 1));
    if (length >= 2 &&
        outgoing_add(outgoing, serial, text, length, lane->source[0] == '\0' ? lane->name : NULL,
                     lane->boot[0] == '\0' ? NULL : stamp.text))
        return true;
    /* Damage can leave an event that fits nowhere: the server refuses what stands for it. */
    return outgoing->count == 0 && outgoing_add(outgoing, serial, "{}", 2, NULL, NULL);
}

static bool load(struct spool *spool, struct lane *lane, int64_t from, size_t max,
                 struct outgoing *outgoing)
{
    sqlite3_stmt *query;
    int code = SQLITE_ROW;

    if (spool->database == NULL || !find_began(spool, lane))
        return false;
    query = sql_prepare(spool->database,
                        "SELECT serial, time, refused, text FROM events"
                        " WHERE lane = ? AND serial >= ? ORDER BY serial",
                        "ii", lane->id, from);
    while (outgoing->count < max && outgoing->refused < 0 &&
           (code = sqlite3_step(query)) == SQLITE_ROW) {
        const bool is_refused = sqlite3_column_type(query, 2) != SQLITE_NULL;

        if ((is_refused && outgoing->count > 0) || !add(lane, query, outgoing))
            break;
        if (is_refused)
            outgoing->refused = sqlite3_column_int64(query, 2);
    }
    sqlite3_finalize(query);
    /* Damage may have left a wrong count. */
    if (outgoing->count == 0 && from == 0 && code == SQLITE_DONE)
        return sql_change(spool->database,
                          "UPDATE lanes SET waiting = (SELECT count(*) FROM events WHERE lane = id)"
                          " WHERE id = ?",
                          "i", lane->id);
    return code == SQLITE_ROW || code == SQLITE_DONE;
}

bool spool_load(struct spool *spool, struct lane *lane, int64_t from, size_t max,
                struct outgoing *outgoing)
{
    bool is_loaded;

    outgoing_clear(outgoing);
    pthread_mutex_lock(&spool->lock);
    is_loaded = load(spool, lane, from, max, outgoing);
    if (!is_loaded) {
        (void)!spool_end(spool, false);
        log_event(LOG_ERROR, "spool_error", spool->problem);
    }
    pthread_mutex_unlock(&spool->lock);
    return is_loaded;
}

/* Removes the events of a lane from a serial to another; *count: how many were still there. */
static bool remove_events(struct spool *spool, const struct lane *lane, int64_t first, int64_t last,
                          int64_t *count)
{
    if (!sql_change(spool->database, "DELETE FROM events WHERE serial BETWEEN ? AND ? AND lane = ?",
                    "iii", first, last, lane->id))
        return false;
    *count += sqlite3_changes(spool->database);
    return true;
}

static bool reject(struct spool *spool, const struct lane *lane, const struct outgoing *outgoing,
                   const struct answer *answer, int64_t *count)
{
    bool is_done = true;

    for (size_t i = 0; i < answer->rejected_count && is_done; i++) {
        const struct answer_rejection *rejection = &answer->rejected[i];
        const int64_t serial = outgoing->serials[rejection->index];

        is_done = sql_change(spool->database,
                             "INSERT INTO rejected (source, boot, time, text, code, message,"
                             " rejected_at) SELECT source, boot, time, text, ?2, ?3, ?4"
                             " FROM events JOIN lanes ON id = lane WHERE serial = ?1",
                             "issi", serial, rejection->code, rejection->message, moment_now()) &&
                  remove_events(spool, lane, serial, serial, count);
    }
    return is_done;
}

/* Writes what an answer means, in a transaction. */
static bool write_answer(struct spool *spool, const struct lane *lane,
                         const struct outgoing *outgoing, const struct answer *answer,
                         const char *detail, int64_t *forgotten)
{
    const int64_t sent = answer->action == ANSWER_STORED ? (int64_t)outgoing->count : 0;
    int64_t removed = 0, rejected = 0;
    bool is_done = true;

    if (answer->action == ANSWER_STORED)
        is_done = remove_events(spool, lane, outgoing->serials[0],
                                outgoing->serials[outgoing->count - 1], &removed);
    else if (answer->action == ANSWER_REJECT_LISTED)
        is_done = reject(spool, lane, outgoing, answer, &rejected) &&
                  spool_forget_rejected(spool, forgotten);
    else if (answer->action == ANSWER_HALVE && outgoing->count == 1)
        is_done = sql_change(spool->database,
                             "UPDATE events SET refused = ? WHERE serial = ? AND refused IS NULL",
                             "ii", lane->accepted, outgoing->serials[0]);
    /* An event that was dropped meanwhile has arrived all the same. */
    return is_done &&
           sql_change(spool->database,
                      "UPDATE lanes SET status = ?, answered_at = ?, detail = ?,"
                      " waiting = waiting - ?, accepted = accepted + ? WHERE id = ?",
                      "iisiii", (int64_t)answer->status, moment_now() / 1000, detail,
                      removed + rejected, (int64_t)(sent > 0), lane->id) &&
           sql_change(spool->database,
                      "UPDATE totals SET sent = sent + ?1, rejected = rejected + ?2,"
                      " dropped = max(dropped - ?3, 0), forgotten = forgotten + ?4",
                      "iiii", sent, rejected, sent > 0 ? sent - removed : 0, *forgotten);
}

bool spool_settle(struct spool *spool, const struct lane *lane, const struct outgoing *outgoing,
                  const struct answer *answer, const char *detail)
{
    int64_t forgotten = 0;
    bool is_done;

    pthread_mutex_lock(&spool->lock);
    is_done = spool_begin(spool) &&
              spool_end(spool, write_answer(spool, lane, outgoing, answer, detail, &forgotten));
    if (is_done) {
        spool_report_loss("rejected_dropped", forgotten,
                          "too many rejected events, dropped the oldest");
        spool_tidy(spool);
    } else {
        log_event(LOG_ERROR, "spool_error", spool->problem);
    }
    pthread_mutex_unlock(&spool->lock);
    return is_done;
}
