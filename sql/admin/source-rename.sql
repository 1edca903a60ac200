-- Begins a rename; reports the number of events to move and of keys that were copied.
-- steps.sql moves the events.
-- :old     the source's name
-- :new     its new name
-- :merge   true if the new name may have events, else false
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT public.begin_rename(:'old', :'new', :'merge') AS keys \gset
COMMIT;
SELECT coalesce(sum(event_count), 0) AS events FROM public.hourly_counts WHERE source = :'old' \gset
\warn prepared :events :keys
SELECT set_config('steep.rows', :'events', false),
  set_config('steep.step', format('SELECT public.move_events(%L, %L)', :'old', :'new'), false) \g /dev/null
