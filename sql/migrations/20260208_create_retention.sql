-- Retention, in steps: the caller runs each as a transaction of its own, because a single
-- one would hold its locks and the deleted rows' space until its end.
--
-- A batch waits for the end of a step only if it repeats an id of the step, to learn whether
-- that id still exists, or has events of a source and hour that the step deletes from.

SET ROLE steep_owner;

-- Finds rows by the index and addresses them by ctid: 15 ms for 10,000 of 2 million events,
-- instead of 57 ms by id (EXPLAIN ANALYZE, PostgreSQL 15 on two cores, all in memory). By
-- itself the planner would read the table from its start, which takes 180 ms if the old
-- events are there. A row that is being changed by another transaction may be left for the
-- next step.
--
-- The advisory lock makes callers take turns. Without it a second caller would wait for the
-- first one's rows, find them gone, and report that nothing is left to delete.
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
    RAISE EXCEPTION 'older_than must be at least 0, and max_rows at least 1'
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
  'Deletes events older than the interval, the oldest first, at most max_rows of them, and returns how many; call it, each time in a new transaction, until it returns 0';

REVOKE ALL ON FUNCTION public.prune_events(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.prune_events(interval, integer) TO service_role, steep_prune;

-- For a caller that wants to know before it begins: prune_events trusts the server's clock,
-- and with one that is years ahead every event is old. From the hourly counts, and for the
-- last, partial hour from the events, as get_hourly_aggregates does.
CREATE FUNCTION public.count_old_events(older_than interval DEFAULT '90 days')
RETURNS TABLE (old_events bigint, all_events bigint, begin_at timestamptz, end_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  window_start CONSTANT timestamptz := now() - older_than;
  first_hour CONSTANT timestamptz := date_trunc('hour', window_start);
  partial bigint;
BEGIN
  IF older_than IS NULL OR older_than < interval '0' THEN
    RAISE EXCEPTION 'older_than must be at least 0' USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- TRUNCATE locks the events before the counts; locking in another order could deadlock.
  SELECT count(*) INTO partial FROM public.events AS e WHERE e.timestamp >= first_hour AND e.timestamp < window_start;

  RETURN QUERY
  SELECT
    coalesce(sum(counted.event_count) FILTER (WHERE counted.hour < first_hour), 0)::bigint + partial,
    coalesce(sum(counted.event_count), 0)::bigint,
    min(counted.hour) FILTER (WHERE counted.hour < first_hour OR counted.hour = first_hour AND partial > 0),
    CASE
      WHEN partial > 0 THEN window_start
      ELSE max(counted.hour) FILTER (WHERE counted.hour < first_hour) + interval '1 hour'
    END
  FROM public.hourly_counts AS counted;
END
$$;

COMMENT ON FUNCTION public.count_old_events(interval) IS
  'Counts the events older than the interval, and all events; returns also when the first hour of the old ones begins and the last one ends, NULL if there are none';

REVOKE ALL ON FUNCTION public.count_old_events(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.count_old_events(interval) TO service_role, steep_prune;

-- No index tells which payloads are empty: it would cost every batch, to spare a daily run
-- the reading of events that earlier runs emptied. So a run reads each old event once, from
-- begin_at on, and writes only those not empty yet. If the step ends among several events of
-- one instant, the next step starts at that instant and finds the rest.
--
-- The new, smaller version of an event usually goes to another page, because its own is
-- full, and both indexes get a new entry. A fillfactor that leaves room for it (a third of
-- each page) would make the table larger for good, for one update in an event's life.
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
    RAISE EXCEPTION 'older_than must be at least 0, max_rows at least 1, and begin_at not null'
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
  'Replaces the payloads of events older than the interval with {}, the oldest first, at most max_rows of them, and returns how many and the time of the newest; call it again with that time as begin_at, each time in a new transaction, until it returns 0';

REVOKE ALL ON FUNCTION public.empty_payloads(interval, integer, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.empty_payloads(interval, integer, timestamptz) TO service_role, steep_prune;

RESET ROLE;
