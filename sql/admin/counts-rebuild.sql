-- Computes the hourly counts again; prints the number of events counted. How many are expected is
-- what is counted now, or PostgreSQL's estimate, as both may be too small.
\set counts public.hourly_counts
\if :{?is_router}
\set counts proxy.count_hours()
\endif
SELECT greatest(sum(event_count), (SELECT reltuples FROM pg_class WHERE oid = 'public.events'::regclass), 0)::bigint AS events
FROM :counts \gset
\warn prepared :events
SET client_min_messages = notice;
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT public.rebuild_hourly_counts();
COMMIT;
