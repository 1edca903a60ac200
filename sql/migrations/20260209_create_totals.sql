-- Totals: what get_hourly_aggregates returns, summed over the sources or over the hours, so
-- that the answer stays small however many sources there are. And for a token with a scope,
-- rows and totals of its sources alone.

SET ROLE steep_owner;

-- names and prefixes limit a caller to sources: those that equal a name or begin with a
-- prefix, compared byte by byte. NULL for both is no limit. The sources that begin with a
-- prefix are adjacent in the primary key, so it is asked once for each of them.
CREATE FUNCTION public.find_sources(source_filter text, names text[], prefixes text[])
RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
  IF names IS NULL AND prefixes IS NULL THEN
    RETURN CASE WHEN source_filter IS NOT NULL THEN ARRAY[source_filter] END;
  ELSIF source_filter IS NOT NULL THEN
    RETURN ARRAY(
      SELECT source_filter
      WHERE source_filter = ANY (names)
        OR EXISTS (SELECT FROM unnest(prefixes) AS prefix WHERE starts_with(source_filter, prefix))
    );
  END IF;

  RETURN ARRAY(
    WITH RECURSIVE candidates (prefix, source) AS (
      SELECT prefix, (SELECT min(counts.source) FROM public.hourly_counts AS counts WHERE counts.source >= prefix)
      FROM unnest(prefixes) AS prefix
      UNION ALL
      SELECT prefix, (SELECT min(counts.source) FROM public.hourly_counts AS counts WHERE counts.source > candidates.source)
      FROM candidates WHERE starts_with(candidates.source, prefix)
    )
    SELECT source FROM candidates WHERE starts_with(source, prefix)
    UNION
    SELECT unnest(names)
  );
END
$$;

COMMENT ON FUNCTION public.find_sources(text, text[], text[]) IS
  'Returns the sources to count: source_filter, if the names and prefixes allow it; or all that equal a name or begin with a prefix; or NULL for all';

REVOKE ALL ON FUNCTION public.find_sources(text, text[], text[]) FROM PUBLIC;

-- PARALLEL SAFE, so that a query that calls it may use parallel workers for its other parts.
CREATE FUNCTION public.count_partial_hour(window_start timestamptz, sources text[])
RETURNS TABLE (source text, event_count bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  second_hour CONSTANT timestamptz := date_trunc('hour', window_start) + interval '1 hour';
BEGIN
  IF cardinality(sources) = 1 THEN
    -- As in get_hourly_aggregates: the index returns only the events of this source.
    RETURN QUERY
    SELECT sources[1], count(*)
    FROM public.events AS e
    WHERE e.timestamp >= window_start AND e.timestamp < second_hour AND e.source = sources[1]
    HAVING count(*) > 0;
  ELSE
    RETURN QUERY
    SELECT e.source, count(*)
    FROM public.events AS e
    WHERE e.timestamp >= window_start AND e.timestamp < second_hour
    GROUP BY e.source
    HAVING sources IS NULL OR e.source IN (SELECT unnest(sources));
  END IF;
END
$$;

COMMENT ON FUNCTION public.count_partial_hour(timestamptz, text[]) IS
  'Counts events by source from window_start to the end of its UTC hour, of these sources or of all (NULL), in no order';

REVOKE ALL ON FUNCTION public.count_partial_hour(timestamptz, text[]) FROM PUBLIC;

-- Not arguments of get_hourly_aggregates: with defaults they would make the data model's own
-- call ambiguous, without them they would change its signature.
--
-- A custom plan knows the sources: a few are read from the primary key and sorted, many from
-- the index that has the order of the result.
CREATE FUNCTION public.get_scoped_aggregates(
  days_back integer DEFAULT 7, source_filter text DEFAULT NULL, names text[] DEFAULT NULL, prefixes text[] DEFAULT NULL
)
RETURNS TABLE (source text, date date, hour integer, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  window_start CONSTANT timestamptz := now() - make_interval(days => days_back);
  first_hour CONSTANT timestamptz := date_trunc('hour', window_start);
  second_hour CONSTANT timestamptz := first_hour + interval '1 hour';
  sources text[];
BEGIN
  -- TRUNCATE locks the events before the counts; locking in another order could deadlock.
  PERFORM FROM public.events LIMIT 0;

  sources := public.find_sources(source_filter, names, prefixes);
  RETURN QUERY
  SELECT counts.source, counts.date, counts.hour_of_day, counts.event_count
  FROM public.hourly_counts AS counts
  WHERE (sources IS NULL OR counts.source = ANY (sources)) AND counts.hour >= second_hour
  ORDER BY counts.hour DESC, counts.source;

  RETURN QUERY
  SELECT
    partial.source,
    (first_hour AT TIME ZONE 'UTC')::date,
    extract(hour FROM first_hour AT TIME ZONE 'UTC')::integer,
    partial.event_count
  FROM public.count_partial_hour(window_start, sources) AS partial
  ORDER BY partial.source COLLATE "C";
END
$$;

COMMENT ON FUNCTION public.get_scoped_aggregates(integer, text, text[], text[]) IS
  'As get_hourly_aggregates, but only of the sources that equal one of names or begin with one of prefixes (NULL for both: no limit)';

REVOKE ALL ON FUNCTION public.get_scoped_aggregates(integer, text, text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.get_scoped_aggregates(integer, text, text[], text[]) TO service_role, steep_query;

-- As in get_hourly_aggregates, the counts and the events of the partial hour are of one
-- instant, and the counts are read in the order of the result, so that a sum is complete when
-- its hour is: one process does in the time of three what a scan of the table would. A custom
-- plan knows the sources: without any, their condition is gone from it, and a few are read from
-- the primary key.
CREATE FUNCTION public.get_hourly_totals(
  days_back integer DEFAULT 7, source_filter text DEFAULT NULL, names text[] DEFAULT NULL, prefixes text[] DEFAULT NULL
)
RETURNS TABLE (date date, hour integer, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  window_start CONSTANT timestamptz := now() - make_interval(days => days_back);
  first_hour CONSTANT timestamptz := date_trunc('hour', window_start);
  second_hour CONSTANT timestamptz := first_hour + interval '1 hour';
  sources text[];
BEGIN
  -- TRUNCATE locks the events before the counts; locking in another order could deadlock.
  PERFORM FROM public.events LIMIT 0;

  sources := public.find_sources(source_filter, names, prefixes);
  RETURN QUERY
  SELECT
    (counts.hour AT TIME ZONE 'UTC')::date,
    extract(hour FROM counts.hour AT TIME ZONE 'UTC')::integer,
    sum(counts.event_count)::bigint
  FROM public.hourly_counts AS counts
  WHERE (sources IS NULL OR counts.source = ANY (sources)) AND counts.hour >= second_hour
  GROUP BY counts.hour
  ORDER BY counts.hour DESC;

  RETURN QUERY
  SELECT
    (first_hour AT TIME ZONE 'UTC')::date,
    extract(hour FROM first_hour AT TIME ZONE 'UTC')::integer,
    sum(partial.event_count)::bigint
  FROM public.count_partial_hour(window_start, sources) AS partial
  HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION public.get_hourly_totals(integer, text, text[], text[]) IS
  'Counts events by UTC hour from now() - days_back days on, of one source or of all (NULL) that equal one of names or begin with one of prefixes (NULL for both: no limit); newest hour first';

REVOKE ALL ON FUNCTION public.get_hourly_totals(integer, text, text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.get_hourly_totals(integer, text, text[], text[]) TO service_role, steep_query;

-- Every row of the window is read and none of the indexes has the counts, so PostgreSQL
-- chooses between the table and the index of hours by the length of the window: planning is
-- nothing beside it. Parallel workers, where there are any free, halve the time.
CREATE FUNCTION public.get_source_totals(
  days_back integer DEFAULT 7, source_filter text DEFAULT NULL, names text[] DEFAULT NULL, prefixes text[] DEFAULT NULL
)
RETURNS TABLE (source text, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  window_start CONSTANT timestamptz := now() - make_interval(days => days_back);
  second_hour CONSTANT timestamptz := date_trunc('hour', window_start) + interval '1 hour';
  sources text[];
BEGIN
  -- TRUNCATE locks the events before the counts; locking in another order could deadlock.
  PERFORM FROM public.events LIMIT 0;

  sources := public.find_sources(source_filter, names, prefixes);
  RETURN QUERY
  SELECT total.source, sum(total.event_count)::bigint
  FROM (
    SELECT counts.source, sum(counts.event_count)::bigint AS event_count
    FROM public.hourly_counts AS counts
    WHERE (sources IS NULL OR counts.source = ANY (sources)) AND counts.hour >= second_hour
    GROUP BY counts.source
    UNION ALL
    SELECT partial.source, partial.event_count FROM public.count_partial_hour(window_start, sources) AS partial
  ) AS total
  GROUP BY total.source
  ORDER BY 2 DESC, total.source;
END
$$;

COMMENT ON FUNCTION public.get_source_totals(integer, text, text[], text[]) IS
  'Counts events by source from now() - days_back days on, of one source or of all (NULL) that equal one of names or begin with one of prefixes (NULL for both: no limit); most events first, then by source in byte order';

REVOKE ALL ON FUNCTION public.get_source_totals(integer, text, text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.get_source_totals(integer, text, text[], text[]) TO service_role, steep_query;

RESET ROLE;
