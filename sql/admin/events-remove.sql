-- Begins to remove events; reports how many there are at most. steps.sql deletes them.
-- :source   the source, or empty for all
-- :from     the time of the first event to remove, or empty
-- :to       the time of the first event to keep, or empty
-- :future   true to begin at the database's time, else false
SET datestyle = ISO;
SET timezone = UTC;
SELECT coalesce(CASE WHEN :'future' THEN now() ELSE NULLIF(:'from', '')::timestamptz END::text, '') AS begin_at,
  coalesce(NULLIF(:'to', '')::timestamptz::text, '') AS end_at
\gset
SELECT coalesce(sum(event_count), 0) AS events
FROM public.hourly_counts
WHERE (:'source' = '' OR source = :'source')
  AND (:'begin_at' = '' OR hour >= date_trunc('hour', NULLIF(:'begin_at', '')::timestamptz))
  AND (:'end_at' = '' OR hour < NULLIF(:'end_at', '')::timestamptz)
\gset
\warn prepared :events
SELECT set_config('steep.rows', :'events', false),
  set_config('steep.step', format('SELECT public.remove_events(%L, %L, %L)', NULLIF(:'source', ''),
    NULLIF(:'begin_at', ''), NULLIF(:'end_at', '')), false) \g /dev/null
