-- Deletes the events of sources that belong to other shards, in steps.
-- It runs in a shard, whose place is known (shard.sql).
DO $$
DECLARE
  name text;
BEGIN
  SET LOCAL datestyle = ISO;
  FOR name IN
    SELECT DISTINCT counts.source FROM public.hourly_counts AS counts, proxy.place
    WHERE proxy.hash(counts.source) & (place.shards - 1) <> place.number
  LOOP
    WHILE public.remove_events(name) > 0 LOOP
      COMMIT;
    END LOOP;
  END LOOP;
END
$$;
