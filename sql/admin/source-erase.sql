-- Begins to erase a source; reports the number of its events and of the keys that were removed.
-- steps.sql deletes the events.
-- :source   the source
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT public.begin_erase(:'source') AS keys \gset
COMMIT;
SELECT coalesce(sum(event_count), 0) AS events FROM public.hourly_counts WHERE source = :'source' \gset
\warn prepared :events :keys
SELECT set_config('steep.rows', :'events', false),
  set_config('steep.step', format('SELECT public.remove_events(%L)', :'source'), false) \g /dev/null
