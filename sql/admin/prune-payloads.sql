-- Empties the payloads of a limited number of old events; prints how many, and the time
-- to begin at in the next step. 0 means that none is left.
-- :days     the age in days
-- :newest   the time to begin at, -infinity in the first step
SET datestyle = ISO;
SET timezone = UTC;
SELECT * FROM public.empty_payloads(:'days'::integer * interval '24 hours', begin_at => :'newest');
