-- Prints the sources that belong to a shard and are in this database, and how many events each has:
-- the MD5 of the name, since a name may have any character. Nothing if it is not migrated. The
-- hash is that of proxy.hash, which a database that is no shard yet does not have. It waits for
-- what is being stored, so that nothing which is acknowledged later is missing.
-- :number   the number of the shard
-- :shards   how many shards there are
SELECT to_regclass('public.hourly_counts') IS NOT NULL AS is_migrated \gset
\if :is_migrated
BEGIN;
LOCK TABLE public.events IN SHARE MODE;
SELECT md5(source), sum(event_count) FROM public.hourly_counts
WHERE ('x' || right(md5(source), 8))::bit(32)::integer & (:shards - 1) = :number
GROUP BY source ORDER BY 1;
COMMIT;
\endif
