#include "db/record.h"

#include <stdio.h>
#include <string.h>

void record_begin(struct record *record, const char *id)
{
    size_t length = strlen(id);

    *record = (struct record){.spent_us = -1};
    if (length <= RECORD_REQUEST_BYTES)
        memcpy(record->request, id, length);
}

void record_add(struct record *record, enum database_verdict verdict, const char *sqlstate,
                int64_t spent_us)
{
    if (verdict != DATABASE_DONE) {
        snprintf(record->sqlstate, sizeof(record->sqlstate), "%s", sqlstate);
        record->is_reported = false;
    }
    record->spent_us = (record->spent_us > 0 ? record->spent_us : 0) + spent_us;
}
