-- Makes a migrated database a shard: what its router (router.sql) calls besides the functions of
-- the migrations, the role that the router logs in as, and the shard's place among the others.
-- steepctl shards init runs it as a superuser; it can be run again.
-- :number   the shard's number, from 0
-- :shards   how many shards there are
-- STEEP_SHARD_PASSWORD, in the environment: the password of the router's role
\getenv password STEEP_SHARD_PASSWORD
SET client_min_messages = warning;
SET password_encryption = 'scram-sha-256';
-- Not in the server's log.
SET log_statement = none;
SET log_min_duration_statement = -1;
SET log_min_error_statement = panic;
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;

SELECT to_regrole('steep_router') IS NULL AS role_is_missing \gset
\if :role_is_missing
CREATE ROLE steep_router;
COMMENT ON ROLE steep_router IS 'steep: the router of the shards';
\endif
-- The password is one that steepctl made. Those who may read pg_stat_activity see it while the
-- statement runs; the log does not have it, see above.
ALTER ROLE steep_router LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
GRANT steep_ingest, steep_query, steep_prune TO steep_router;

-- As those of the programs' roles, which it does not inherit (roles.sql).
DO $$
DECLARE
  setting text[];
BEGIN
  FOR setting IN
    SELECT string_to_array(configuration, '=')
    FROM pg_catalog.pg_db_role_setting AS settings CROSS JOIN LATERAL unnest(settings.setconfig) AS configuration
    WHERE setdatabase = 0 AND setrole = to_regrole('steep_ingest')
  LOOP
    EXECUTE format('ALTER ROLE steep_router SET %s = %L', setting[1], setting[2]);
  END LOOP;
END
$$;

SELECT format('GRANT CONNECT ON DATABASE %I TO steep_router', current_database()) \gexec
GRANT USAGE ON SCHEMA public TO steep_router;

CREATE SCHEMA IF NOT EXISTS proxy;
ALTER SCHEMA proxy OWNER TO steep_owner;
COMMENT ON SCHEMA proxy IS 'steep: what a router of shards and its shards use';
REVOKE ALL ON SCHEMA proxy FROM PUBLIC;
GRANT USAGE ON SCHEMA proxy TO steep_router;

SET ROLE steep_owner;

CREATE TABLE IF NOT EXISTS proxy.place (
  is_single boolean PRIMARY KEY DEFAULT true CHECK (is_single),
  number integer NOT NULL,
  shards integer NOT NULL CHECK (number >= 0 AND number < shards)
);
COMMENT ON TABLE proxy.place IS 'Which of the shards this is';
COMMENT ON COLUMN proxy.place.is_single IS 'Always true: there is one row';
COMMENT ON COLUMN proxy.place.number IS 'The number of this shard, from 0';
COMMENT ON COLUMN proxy.place.shards IS 'How many shards there are';
ALTER TABLE proxy.place ENABLE ROW LEVEL SECURITY;
ALTER TABLE proxy.place FORCE ROW LEVEL SECURITY;

INSERT INTO proxy.place (number, shards) VALUES (:number, :shards)
ON CONFLICT (is_single) DO UPDATE SET number = excluded.number, shards = excluded.shards;

\ir hash.sql

-- XX000, which the programs answer 503, as a monitor should keep the batch.
CREATE OR REPLACE FUNCTION proxy.require(level text, number integer, shards integer)
RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  IF EXISTS (
    SELECT FROM proxy.place
    WHERE place.shards = require.shards AND place.number = coalesce(require.number, place.number)
      AND level = (SELECT max(name COLLATE "C") FROM public.schema_migrations)
  ) THEN
    RETURN true;
  END IF;
  RAISE EXCEPTION 'the router and this shard have different migrations, or another number or order of shards'
    USING ERRCODE = 'internal_error', HINT = 'Run steepctl shards check.';
END
$$;
COMMENT ON FUNCTION proxy.require(text, integer, integer) IS
  'Returns true; an error if the router expects other migrations, another number of shards, or another shard than this (NULL: any)';

-- One function each, since PL/Proxy has each statement parsed and planned anew. Left to choose,
-- PL/pgSQL would plan for the parameters of each call, as in bulk_insert_events.
CREATE OR REPLACE FUNCTION proxy.bulk_insert_events(expected text, of_shards integer, events_json jsonb)
RETURNS TABLE (inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  PERFORM proxy.require(expected, NULL, of_shards);
  RETURN QUERY SELECT stored.inserted_count FROM public.bulk_insert_events(events_json) AS stored;
END
$$;
COMMENT ON FUNCTION proxy.bulk_insert_events(text, integer, jsonb) IS 'bulk_insert_events, if this is a shard that the router expects';

CREATE OR REPLACE FUNCTION proxy.bulk_insert_batches(expected text, of_shards integer, positions integer[], batches jsonb[])
RETURNS TABLE ("position" integer, inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  PERFORM proxy.require(expected, NULL, of_shards);
  RETURN QUERY SELECT stored.position, stored.inserted_count FROM public.bulk_insert_batches(positions, batches) AS stored;
END
$$;
COMMENT ON FUNCTION proxy.bulk_insert_batches(text, integer, integer[], jsonb[]) IS 'bulk_insert_batches, if this is a shard that the router expects';

-- PL/Proxy takes longer to decode a row than PostgreSQL to find and send it, so the hours of a source
-- are one row. An hour is a number: the days since 2000, and in the lower five bits the hour of the
-- day; NULL for infinity. The sources and the window are those of get_scoped_aggregates, and the
-- settings those of get_source_totals.
CREATE OR REPLACE FUNCTION proxy.get_hourly_aggregates(days_back integer, source_filter text, names text[], prefixes text[])
RETURNS TABLE (source text, hours bigint[], event_counts bigint[])
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
  first_hour CONSTANT timestamptz := date_trunc('hour', window_start);
  second_hour CONSTANT timestamptz := first_hour + interval '1 hour';
  sources text[];
BEGIN
  -- TRUNCATE locks the events before the counts; locking in another order could deadlock.
  PERFORM FROM public.events LIMIT 0;

  sources := public.find_sources(source_filter, names, prefixes);
  RETURN QUERY
  SELECT
    found.source,
    array_agg(CASE WHEN isfinite(found.date) THEN (found.date - date '2000-01-01')::bigint << 5 | found.hour END),
    array_agg(found.event_count)
  FROM (
    SELECT counts.source, counts.date, counts.hour_of_day AS hour, counts.event_count
    FROM public.hourly_counts AS counts
    WHERE (sources IS NULL OR counts.source = ANY (sources)) AND counts.hour >= second_hour
    UNION ALL
    SELECT
      partial.source,
      (first_hour AT TIME ZONE 'UTC')::date,
      extract(hour FROM first_hour AT TIME ZONE 'UTC')::integer,
      partial.event_count
    FROM public.count_partial_hour(window_start, sources) AS partial
  ) AS found
  GROUP BY found.source;
END
$$;
COMMENT ON FUNCTION proxy.get_hourly_aggregates(integer, text, text[], text[]) IS
  'As get_scoped_aggregates, but each source is one row with its hours, in no order';

CREATE OR REPLACE FUNCTION proxy.get_hourly_totals(days_back integer, source_filter text, names text[], prefixes text[])
RETURNS TABLE (hours bigint[], event_counts bigint[])
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT
    array_agg(CASE WHEN isfinite(total.date) THEN (total.date - date '2000-01-01')::bigint << 5 | total.hour END),
    array_agg(total.event_count)
  FROM public.get_hourly_totals(days_back, source_filter, names, prefixes) AS total;
END
$$;
COMMENT ON FUNCTION proxy.get_hourly_totals(integer, text, text[], text[]) IS
  'As get_hourly_totals, but one row with all hours, which are numbers as in get_hourly_aggregates';

CREATE OR REPLACE FUNCTION proxy.describe_shard()
RETURNS TABLE (identity text, level text, number integer, shards integer, is_router boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT
    (SELECT concat_ws(' ', system_identifier, pg_database.oid, extract(epoch FROM pg_postmaster_start_time()))
     FROM pg_control_system(), pg_database WHERE datname = current_database()),
    (SELECT max(name COLLATE "C") FROM public.schema_migrations),
    place.number, place.shards,
    EXISTS (SELECT FROM pg_foreign_server WHERE srvname IN ('steep', 'steep_closed'))
  FROM (SELECT) AS one LEFT JOIN proxy.place ON true;
$$;
COMMENT ON FUNCTION proxy.describe_shard() IS
  'Returns which running database this is, its newest migration, and its place among the shards';

CREATE OR REPLACE FUNCTION proxy.list_sources()
RETURNS TABLE (source text, events bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT counts.source, sum(counts.event_count)::bigint FROM public.hourly_counts AS counts GROUP BY 1;
$$;
COMMENT ON FUNCTION proxy.list_sources() IS 'Returns the sources of this shard and how many events each has';

-- What steepctl reads of a database's tables, for the router. Each must be quick, since the router
-- waits for a few seconds only.

CREATE OR REPLACE FUNCTION proxy.count_hours()
RETURNS TABLE (hour timestamptz, event_count bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT counts.hour, sum(counts.event_count)::bigint FROM public.hourly_counts AS counts GROUP BY 1;
$$;
COMMENT ON FUNCTION proxy.count_hours() IS 'Returns how many events each hour has in this shard';

-- Whole hours by their counts; of the hours in which the time begins and ends, the events.
CREATE OR REPLACE FUNCTION proxy.count_events(source_name text, begin_at timestamptz, end_at timestamptz)
RETURNS TABLE (source text, day date, events bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
  WITH counted AS (
    SELECT counts.source, counts.hour AS at, counts.event_count
    FROM public.hourly_counts AS counts
    WHERE (source_name IS NULL OR counts.source = source_name)
      AND (begin_at IS NULL OR counts.hour >= begin_at)
      AND (end_at IS NULL OR counts.hour + interval '59 minutes 59.999999 seconds' < end_at)
    UNION ALL
    SELECT e.source, e.timestamp, 1
    FROM (
      SELECT date_trunc('hour', begin_at) AS hour
      UNION
      SELECT date_trunc('hour', end_at)
    ) AS ends
    JOIN public.events AS e
      ON e.timestamp >= greatest(ends.hour, begin_at) AND e.timestamp <= ends.hour + interval '59 minutes 59.999999 seconds'
    WHERE (source_name IS NULL OR e.source = source_name)
      AND (end_at IS NULL OR e.timestamp < end_at)
      AND NOT (coalesce(ends.hour >= begin_at, true) AND coalesce(ends.hour + interval '59 minutes 59.999999 seconds' < end_at, true))
  )
  SELECT counted.source, date_trunc('day', counted.at)::date, sum(counted.event_count)::bigint FROM counted GROUP BY 1, 2;
$$;
COMMENT ON FUNCTION proxy.count_events(text, timestamptz, timestamptz) IS
  'Counts the events of this shard by source and day of UTC, of one source or all (NULL), from begin_at until before end_at (NULL: no limit)';

-- As sql/admin/source-list.sql does.
CREATE OR REPLACE FUNCTION proxy.describe_sources()
RETURNS TABLE (source text, events bigint, first timestamptz, newest timestamptz, bytes bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET jit = off
AS $$
  WITH counted AS MATERIALIZED (
    SELECT counts.source, sum(counts.event_count) AS events, min(counts.hour) AS first_hour, max(counts.hour) AS newest_hour
    FROM public.hourly_counts AS counts GROUP BY 1
  ), times AS MATERIALIZED (
    SELECT hours.hour, found.source, found.first, found.newest
    FROM (SELECT first_hour AS hour FROM counted UNION SELECT newest_hour FROM counted) AS hours
    CROSS JOIN LATERAL (
      SELECT e.source, min(e.timestamp) AS first, max(e.timestamp) AS newest
      FROM public.events AS e
      WHERE e.timestamp >= hours.hour AND e.timestamp <= hours.hour + interval '59 minutes 59.999999 seconds'
      GROUP BY e.source
    ) AS found
  )
  SELECT counted.source, counted.events::bigint, oldest.first, latest.newest,
    round(counted.events * (SELECT pg_total_relation_size('public.events')) / sum(counted.events) OVER ())::bigint
  FROM counted
  LEFT JOIN times AS oldest ON oldest.source = counted.source AND oldest.hour = counted.first_hour
  LEFT JOIN times AS latest ON latest.source = counted.source AND latest.hour = counted.newest_hour;
$$;
COMMENT ON FUNCTION proxy.describe_sources() IS
  'Returns each source of this shard, its number of events, the time of the first and of the newest, and its part of the bytes of the table';

-- As sql/status.sql does: a few index pages for each source.
CREATE OR REPLACE FUNCTION proxy.report_sources()
RETURNS TABLE (source text, events bigint, newest timestamptz, ahead bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
  WITH counted AS (
    SELECT counts.source, sum(counts.event_count) AS events, max(counts.hour) AS hour,
      sum(counts.event_count) FILTER (WHERE counts.hour > now() + interval '24 hours') AS ahead
    FROM public.hourly_counts AS counts GROUP BY 1
  ), ending AS (
    SELECT e.source, count(*) AS ahead
    FROM public.events AS e
    WHERE e.timestamp > now() + interval '24 hours'
      AND e.timestamp < date_trunc('hour', now() + interval '24 hours') + interval '1 hour'
    GROUP BY 1
  )
  SELECT counted.source, counted.events::bigint, latest.timestamp, (coalesce(counted.ahead, 0) + coalesce(ending.ahead, 0))::bigint
  FROM counted
  LEFT JOIN ending USING (source)
  LEFT JOIN LATERAL (
    SELECT e.timestamp FROM public.events AS e
    WHERE e.source = counted.source AND e.timestamp >= counted.hour AND e.timestamp <= counted.hour + interval '1 hour'
    ORDER BY e.timestamp DESC LIMIT 1
  ) AS latest ON true;
$$;
COMMENT ON FUNCTION proxy.report_sources() IS
  'Returns each source of this shard, its number of events, the time of the newest, and how many are more than a day in the future';

-- No index begins with the source, so its counts tell which hours have events of it; as in
-- find_source_events, 100 of them at a time.
CREATE OR REPLACE FUNCTION proxy.read_page(
  source_name text, after timestamptz, begin_at timestamptz, end_at timestamptz, max_rows integer
)
RETURNS TABLE (line text, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
  RETURN QUERY
  SELECT '{"id":' || to_json(page.id) || ',"source":' || to_json(page.source) || ',"timestamp":' || to_json(page.timestamp)
    || ',"eventType":"' || page.event_type || '","payload":' || page.payload || '}', page.timestamp
  FROM (
    SELECT e.* FROM public.events AS e
    WHERE source_name IS NULL
      AND e.timestamp >= coalesce(begin_at, '-infinity') AND (after IS NULL OR e.timestamp > after)
      AND (end_at IS NULL OR e.timestamp < end_at)
    ORDER BY e.timestamp
    FETCH FIRST max_rows ROWS WITH TIES
  ) AS page
  ORDER BY page.timestamp;

  RETURN QUERY
  SELECT '{"id":' || to_json(page.id) || ',"source":' || to_json(page.source) || ',"timestamp":' || to_json(page.timestamp)
    || ',"eventType":"' || page.event_type || '","payload":' || page.payload || '}', page.timestamp
  FROM (
    SELECT e.*
    FROM (
      SELECT counts.hour FROM public.hourly_counts AS counts
      WHERE counts.source = source_name
        AND counts.hour >= date_trunc('hour', greatest(begin_at, after, '-infinity'))
        AND (end_at IS NULL OR counts.hour < end_at)
      ORDER BY counts.hour
      LIMIT 100
    ) AS hours
    JOIN public.events AS e
      ON e.timestamp >= hours.hour AND e.timestamp <= hours.hour + interval '59 minutes 59.999999 seconds'
    WHERE e.source = source_name AND (begin_at IS NULL OR e.timestamp >= begin_at) AND (after IS NULL OR e.timestamp > after)
      AND (end_at IS NULL OR e.timestamp < end_at)
    ORDER BY e.timestamp
    FETCH FIRST max_rows ROWS WITH TIES
  ) AS page
  ORDER BY page.timestamp;
END
$$;
COMMENT ON FUNCTION proxy.read_page(text, timestamptz, timestamptz, timestamptz, integer) IS
  'Returns events as JSON, the oldest after a time first, and the time of each: max_rows of them, and all that have the time of the last one; none only if there are none';

CREATE OR REPLACE FUNCTION proxy.has_events(source_name text, block bigint, blocks bigint)
RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET jit = off
AS $$
  SELECT EXISTS (
    SELECT FROM public.events AS e
    WHERE e.source = source_name AND e.ctid >= format('(%s,0)', block)::tid AND e.ctid < format('(%s,0)', block + blocks)::tid
  );
$$;
COMMENT ON FUNCTION proxy.has_events(text, bigint, bigint) IS 'Whether some blocks of the table of events have events of a source';

CREATE OR REPLACE FUNCTION proxy.count_blocks()
RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT pg_relation_size('public.events') / current_setting('block_size')::bigint; $$;
COMMENT ON FUNCTION proxy.count_blocks() IS 'Returns how many blocks the table of events has';

-- A rename to a name of another shard reads events here, stores them there and deletes them here.
CREATE OR REPLACE FUNCTION proxy.read_events(source_name text, max_rows integer)
RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]')
  FROM public.events AS e
  WHERE e.ctid = ANY (public.find_source_events(source_name, NULL, NULL, max_rows));
$$;
COMMENT ON FUNCTION proxy.read_events(text, integer) IS 'Returns rows of events of a source, the oldest hours first, at most max_rows';

CREATE OR REPLACE FUNCTION proxy.store_events(source_name text, events_json jsonb)
RETURNS text[]
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload, created_at)
  SELECT id, source_name, timestamp, event_type, payload, created_at
  FROM jsonb_populate_recordset(NULL::public.events, events_json)
  ORDER BY id COLLATE "C"
  ON CONFLICT (id) DO NOTHING;

  SELECT coalesce(array_agg(stored.id), '{}')
  FROM jsonb_array_elements(events_json) AS sent (event)
  JOIN public.events AS stored ON stored.id = sent.event->>'id'
  WHERE stored.source = source_name;
$$;
COMMENT ON FUNCTION proxy.store_events(text, jsonb) IS
  'Stores rows of events under a source, and returns the ids of those that are stored under it now; not those of ids that another source has';

CREATE OR REPLACE FUNCTION proxy.delete_events(source_name text, ids text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  deleted bigint;
BEGIN
  PERFORM pg_advisory_xact_lock('public.events'::regclass::oid::bigint);
  DELETE FROM public.events WHERE id = ANY (ids) AND source = source_name;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END
$$;
COMMENT ON FUNCTION proxy.delete_events(text, text[]) IS 'Deletes events of a source and returns how many';

RESET ROLE;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA proxy FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA proxy TO steep_router;
-- What only administrators may, and those that a router lets.
GRANT EXECUTE ON FUNCTION public.count_source(text), public.remove_events(text, timestamptz, timestamptz, integer),
  public.move_events(text, text, integer), public.check_hourly_counts(timestamptz, timestamptz),
  public.rebuild_hourly_counts() TO steep_router;
COMMIT;
