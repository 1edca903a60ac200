-- Prints how many events events-remove.sql would remove, by source and day of UTC.
-- Its variables are those of events-remove.sql.
BEGIN;
SET LOCAL datestyle = ISO;
SET LOCAL timezone = UTC;
SELECT regexp_replace(source, '[[:cntrl:]]', '?', 'g'), date_trunc('day', timestamp)::date, count(*)
FROM public.events
WHERE (:'source' = '' OR source = :'source')
  AND timestamp >= CASE WHEN :'future' THEN now() ELSE coalesce(NULLIF(:'from', '')::timestamptz, '-infinity') END
  AND (:'to' = '' OR timestamp < NULLIF(:'to', '')::timestamptz)
GROUP BY source, 2
ORDER BY source COLLATE "C", 2;
COMMIT;
