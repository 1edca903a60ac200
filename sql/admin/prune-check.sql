-- Prints why prune should not run without --force: it would delete more than half of all
-- events, of more than seven days, as it would if the server's clock were years ahead.
-- Prints nothing if it may run.
-- :days   the age in days
SET datestyle = ISO;
SET timezone = UTC;
SELECT format(
  'refused to delete %s of %s events, those from %s to %s, which is more than half and more than seven days. '
    'The clock of the database is at %s; if that is right, run steepctl prune %s --force',
  old_events, all_events, begin_at::date, (end_at - interval '1 microsecond')::date,
  to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), :'days')
FROM public.count_old_events(:'days'::integer * interval '24 hours')
WHERE old_events > all_events - old_events AND end_at > begin_at + interval '168 hours';
