-- Prints how many events, hourly counts and keys a source has; nothing if it has none of them.
-- :source   the source
SELECT * FROM (
  SELECT events, hours, (SELECT count(*) FROM public.monitor_keys WHERE source = :'source') AS keys
  FROM public.count_source(:'source')
) AS info
WHERE hours + keys > 0;
