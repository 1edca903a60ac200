-- Prepares to erase a source, for steps.sql: the number of its events, and of the keys that were
-- removed.
-- :source   the source
SELECT format('SELECT concat_ws('' '', events, public.begin_erase(%L)) FROM public.count_source(%L)', :'source', :'source') AS begin,
  format('SELECT public.remove_events(%L)', :'source') AS step
\gset
