-- Retention, in steps that are each a transaction of the caller's: one for everything
-- would hold its locks, and what it deleted, for as long as it takes.
--
-- Whoever stores events meanwhile waits for none of this: a count that a step has
-- locked is one beside which a batch notes its own. Only a batch that repeats an id
-- of the step waits for that step's end, to learn whether the id is still there.

SET ROLE steep_owner;

-- Rows are found by the index and addressed by their place in the table: 15 ms for
-- 10,000 of 2 million events, where it takes 57 ms to look each up by its id (EXPLAIN
-- ANALYZE, PostgreSQL 15 on two cores, everything in memory). Left to itself the planner
-- reads the table from its beginning, 180 ms while that is where the old events are. A
-- row that another transaction changes at the same moment may be left for the next step.
--
-- The lock makes those who prune take turns: the second would wait for the first's
-- rows anyway, find none of them left, and report that there is nothing more to do.
CREATE FUNCTION public.prune_events(older_than interval DEFAULT '90 days', max_rows integer DEFAULT 10000)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  deleted bigint;
BEGIN
  IF older_than IS NULL OR older_than < interval '0' OR max_rows IS NULL OR max_rows < 1 THEN
    RAISE EXCEPTION 'older_than is an interval of at least 0, and max_rows at least 1'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock('public.events'::regclass::oid::bigint);

  DELETE FROM public.events
  WHERE ctid = ANY (ARRAY(
    SELECT old.ctid FROM public.events AS old
    WHERE old.timestamp < now() - older_than
    ORDER BY old.timestamp
    LIMIT max_rows
  ));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END
$$;

COMMENT ON FUNCTION public.prune_events(interval, integer) IS
  'Deletes the oldest events that are older than the interval, at most max_rows of them, and returns how many; to be called, a transaction each, until it returns 0';

REVOKE ALL ON FUNCTION public.prune_events(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.prune_events(interval, integer) TO service_role;

-- Which payloads are empty is in no index: one would cost every batch that is stored,
-- and spare a daily run the reading of what earlier ones emptied. So a run reads each
-- old event once, from begin_at on, and writes only those that are not empty yet. Of
-- several events of one instant, those behind the step's end are read again, and found.
--
-- An event is written anew, smaller, to another page as a rule, since its own is full;
-- both indexes get an entry more, and the old ones are the next vacuum's. Room for it in
-- each page (a third of it) would make the table larger for good, for the sake of one
-- update in an event's life.
CREATE FUNCTION public.empty_payloads(
  older_than interval DEFAULT '7 days', max_rows integer DEFAULT 10000, begin_at timestamptz DEFAULT '-infinity'
)
RETURNS TABLE (emptied bigint, newest timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
  IF older_than IS NULL OR older_than < interval '0' OR max_rows IS NULL OR max_rows < 1 OR begin_at IS NULL THEN
    RAISE EXCEPTION 'older_than is an interval of at least 0, max_rows at least 1, and begin_at a time'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock('public.events'::regclass::oid::bigint);

  RETURN QUERY
  WITH written AS (
    UPDATE public.events AS stored SET payload = '{}'
    WHERE stored.ctid = ANY (ARRAY(
      SELECT old.ctid FROM public.events AS old
      WHERE old.timestamp >= begin_at AND old.timestamp < now() - older_than AND old.payload <> '{}'
      ORDER BY old.timestamp
      LIMIT max_rows
    ))
    RETURNING stored.timestamp
  )
  SELECT count(*), max(written.timestamp) FROM written;
END
$$;

COMMENT ON FUNCTION public.empty_payloads(interval, integer, timestamptz) IS
  'Makes the payloads of the oldest events that are older than the interval {}, at most max_rows of them, and returns how many and the time of the newest; to be called with that time as begin_at, a transaction each, until it empties none';

REVOKE ALL ON FUNCTION public.empty_payloads(interval, integer, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.empty_payloads(interval, integer, timestamptz) TO service_role;

RESET ROLE;
