-- Prepares to remove events, for steps.sql: how many there are at most.
-- :source   the source, or empty for all
-- :from     the time of the first event to remove, or empty
-- :to       the time of the first event to keep, or empty
-- :future   true to begin at the database's time, else false
BEGIN;
SET LOCAL datestyle = ISO;
SET LOCAL timezone = UTC;
SELECT coalesce(CASE WHEN :'future' THEN now() ELSE NULLIF(:'from', '')::timestamptz END::text, '') AS begin_at,
  coalesce(NULLIF(:'to', '')::timestamptz::text, '') AS end_at
\gset
COMMIT;
\set count 'SELECT coalesce(sum(event_count), 0) FROM public.hourly_counts WHERE (%1$L IS NULL OR source = %1$L) AND (%2$L IS NULL OR hour >= date_trunc(''hour'', %2$L::timestamptz)) AND (%3$L IS NULL OR hour < %3$L::timestamptz)'
\if :{?is_router}
\set count 'SELECT coalesce(sum(events), 0) FROM proxy.count_events(%1$L, %2$L, %3$L)'
\endif
SELECT format(:'count', NULLIF(:'source', ''), NULLIF(:'begin_at', ''), NULLIF(:'end_at', '')) AS begin,
  format('SELECT public.remove_events(%L, %L, %L)', NULLIF(:'source', ''), NULLIF(:'begin_at', ''), NULLIF(:'end_at', '')) AS step
\gset
