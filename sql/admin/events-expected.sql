-- Prints how many events events-export.sql will print, by the hourly counts: the partial hours at
-- the ends as whole ones. Its variables are those of events-export.sql.
SET timezone = UTC;
\if :{?is_router}
SELECT coalesce(sum(events), 0) FROM proxy.count_events(NULLIF(:'source', ''), NULLIF(:'from', '')::timestamptz, NULLIF(:'to', '')::timestamptz);
\else
SELECT coalesce(sum(event_count), 0)
FROM public.hourly_counts
WHERE (:'source' = '' OR source = :'source')
  AND (:'from' = '' OR hour >= date_trunc('hour', NULLIF(:'from', '')::timestamptz))
  AND (:'to' = '' OR hour < NULLIF(:'to', '')::timestamptz);
\endif
