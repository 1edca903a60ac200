-- Prints why the bounds of events to remove are not valid; nothing if they are.
-- :from   the time of the first event to remove, or empty
-- :to     the time of the first event to keep, or empty
BEGIN;
SET LOCAL timezone = UTC;
SELECT 'the time of --from must be before that of --to'
WHERE NULLIF(:'from', '')::timestamptz >= NULLIF(:'to', '')::timestamptz;
COMMIT;
