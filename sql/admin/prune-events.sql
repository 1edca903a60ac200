-- Deletes a limited number of old events; prints how many. 0 means that none is left.
-- :days   the age in days
SELECT public.prune_events(:'days'::integer * interval '24 hours');
