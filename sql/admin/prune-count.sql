-- Prints how many events are older than :newest, or than :days days if that is empty or -infinity.
-- :days     the age in days
-- :newest   a time, or empty
SELECT old_events
FROM public.count_old_events(coalesce(now() - NULLIF(NULLIF(:'newest', ''), '-infinity')::timestamptz, :'days'::integer * interval '24 hours'));
