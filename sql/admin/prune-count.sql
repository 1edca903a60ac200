-- Prints how many events are older than :days days; or, of :newest, how many are older than that
-- time.
-- :days     the age in days
-- :newest   a time, or empty
SELECT old_events
FROM public.count_old_events(coalesce(now() - NULLIF(NULLIF(:'newest', ''), '-infinity')::timestamptz, :'days'::integer * interval '24 hours'));
