-- Prints the events as NDJSON, one JSON object a line, in the order in which they are stored.
-- :source   the source, or empty for all
-- :from     the time of the first, or empty
-- :to       the time before which they are, or empty
BEGIN;
SET LOCAL timezone = 'UTC';
SET LOCAL synchronize_seqscans = off;
SET LOCAL row_security = off;

-- JSON's text has no control characters, so with these as delimiter and quote COPY changes
-- nothing in it. A time as JSON is RFC 3339's.
COPY (
  SELECT
    '{"id":' || to_json(id) || ',"source":' || to_json(source) || ',"timestamp":' || to_json(timestamp)
    || ',"eventType":"' || event_type || '","payload":' || payload || '}'
  FROM public.events
  WHERE (:'source' = '' OR source = :'source')
    AND (:'from' = '' OR timestamp >= nullif(:'from', '')::timestamptz)
    AND (:'to' = '' OR timestamp < nullif(:'to', '')::timestamptz)
) TO STDOUT (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
COMMIT;
