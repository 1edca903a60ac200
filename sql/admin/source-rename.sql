-- Prepares a rename, for steps.sql: the number of events to move, the number of keys that were
-- copied, and the labels of the tokens whose scope got the new name.
-- :old     the source's name
-- :new     its new name
-- :merge   true if the new name may have events, else false
SELECT format('SELECT concat_ws('' '', (SELECT events FROM public.count_source(%L)),'
    ' keys, array_to_string(labels, '' '')) FROM public.begin_rename(%L, %L, %L)', :'old', :'old', :'new', :'merge') AS begin,
  format('SELECT public.move_events(%L, %L)', :'old', :'new') AS step
\gset
