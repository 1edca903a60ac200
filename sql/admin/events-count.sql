-- Prints how many events events-remove.sql would remove, by source and day of UTC.
-- Its variables are those of events-remove.sql, and
-- :json   if set: as a JSON document
BEGIN;
SET LOCAL datestyle = ISO;
SET LOCAL timezone = UTC;
WITH counted AS (
\if :{?is_router}
  SELECT source, day, sum(events)::bigint AS count
  FROM proxy.count_events(
    NULLIF(:'source', ''), CASE WHEN :'future' THEN now() ELSE NULLIF(:'from', '')::timestamptz END, NULLIF(:'to', '')::timestamptz
  )
\else
  SELECT source, date_trunc('day', timestamp)::date AS day, count(*) AS count
  FROM public.events
  WHERE (:'source' = '' OR source = :'source')
    AND timestamp >= CASE WHEN :'future' THEN now() ELSE coalesce(NULLIF(:'from', '')::timestamptz, '-infinity') END
    AND (:'to' = '' OR timestamp < NULLIF(:'to', '')::timestamptz)
\endif
  GROUP BY 1, 2
)
\if :{?json}
SELECT json_build_object('days', coalesce(json_agg(entry ORDER BY source COLLATE "C", date), '[]'))
FROM (SELECT source, NULLIF(to_char(day, 'YYYY-MM-DD'), '') AS date, count AS "eventCount" FROM counted) AS entry;
\else
SELECT regexp_replace(source, '[[:cntrl:]]', '?', 'g'), day, count
FROM counted
ORDER BY source COLLATE "C", day;
\endif
COMMIT;
