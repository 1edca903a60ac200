-- Makes a migrated database without events a router: its functions ask the shards, by PL/Proxy.
-- Their names and signatures stay, so programs and steepctl need not know. The credentials are
-- the router's own. steepctl shards init runs it as a superuser, after shard.sql on each shard;
-- it can be run again, and has to be after a migration.
-- STEEP_SHARDS, in the environment: a connection string of each shard without user and password,
--   a line each, in the order of their numbers; a power of two of them
-- STEEP_SHARD_PASSWORD, in the environment: the password of steep_router on all of them
\getenv strings STEEP_SHARDS
\getenv password STEEP_SHARD_PASSWORD
SET client_min_messages = warning;
SET log_statement = none;
SET log_min_duration_statement = -1;
SET log_min_error_statement = panic;
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
CREATE EXTENSION IF NOT EXISTS plproxy;
CREATE SCHEMA IF NOT EXISTS proxy;
ALTER SCHEMA proxy OWNER TO steep_owner;
COMMENT ON SCHEMA proxy IS 'steep: what a router of shards and its shards use';
REVOKE ALL ON SCHEMA proxy FROM PUBLIC;

-- libpq ignores connect_timeout in the calls that PL/Proxy makes, and PL/Proxy looks at
-- query_timeout only when another event wakes it. So that a shard whose machine is gone costs a
-- few seconds, TCP must find out; one whose processes are frozen takes a PgBouncer in between
-- (deploy/SCALING.md).
SELECT string_agg(format('p%s %L', number - 1,
    'application_name=steep-router tcp_user_timeout=2000 keepalives_idle=2 keepalives_interval=1 keepalives_count=2 ' || string), ', ' ORDER BY number) AS partitions,
  count(*) AS shards
FROM string_to_table(:'strings', E'\n') WITH ORDINALITY AS given (string, number) \gset
DROP SERVER IF EXISTS steep, steep_closed CASCADE;
SELECT format('CREATE SERVER steep FOREIGN DATA WRAPPER plproxy OPTIONS (query_timeout ''9'', %s)', :'partitions') \gexec
CREATE USER MAPPING FOR steep_owner SERVER steep OPTIONS (user 'steep_router', password :'password');
GRANT USAGE ON FOREIGN SERVER steep TO steep_owner;

-- PL/Proxy's language is for superusers only, so they create the functions for their owner.

SELECT format('CREATE OR REPLACE FUNCTION proxy.shards() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %s', :'shards') \gexec
COMMENT ON FUNCTION proxy.shards() IS 'How many shards there are';
SELECT format('CREATE OR REPLACE FUNCTION proxy.level() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::text',
  max(name COLLATE "C")) FROM public.schema_migrations \gexec
COMMENT ON FUNCTION proxy.level() IS 'The migration that this router was made at, and its shards must have';

\ir hash.sql

-- All events of a batch have one source. An empty batch is one of a source with an empty name.
CREATE OR REPLACE FUNCTION proxy.hash_of_batch(batch jsonb)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT proxy.hash(batch->0->>'source') $$;
COMMENT ON FUNCTION proxy.hash_of_batch(jsonb) IS 'The hash of the source of a batch';

CREATE OR REPLACE FUNCTION proxy.shards_of(source_filter text, names text[], prefixes text[])
RETURNS SETOF integer
LANGUAGE sql IMMUTABLE
AS $$
  SELECT proxy.hash(source_filter) WHERE source_filter IS NOT NULL
  UNION ALL
  SELECT DISTINCT proxy.hash(name) & (proxy.shards() - 1) FROM pg_catalog.unnest(names) AS name
  WHERE source_filter IS NULL AND coalesce(prefixes, '{}') = '{}'
  UNION ALL
  SELECT pg_catalog.generate_series(0, proxy.shards() - 1)
  WHERE source_filter IS NULL AND (names IS NULL OR prefixes <> '{}')
$$;
COMMENT ON FUNCTION proxy.shards_of(text, text[], text[]) IS
  'The shards that may have what a query asks for, as hashes: of one source, of a scope''s names, or all';

-- What runs on the shards. Only the functions below call these, which run as steep_owner, whose
-- user mapping PL/Proxy takes, and pin search_path: stating both again would cost each call.
CREATE OR REPLACE FUNCTION proxy.bulk_insert_events(expected text, of_shards integer, events_json jsonb)
RETURNS TABLE (inserted_count bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON proxy.hash_of_batch(events_json);
$$;
COMMENT ON FUNCTION proxy.bulk_insert_events(text, integer, jsonb) IS 'bulk_insert_events on the shard of the batch';

-- PL/Proxy runs a query for each batch, to find its shard; that of an argument takes least.
CREATE OR REPLACE FUNCTION proxy.bulk_insert_batches(hashes integer[], expected text, of_shards integer, positions integer[], batches jsonb[])
RETURNS TABLE ("position" integer, inserted_count bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  SPLIT hashes, positions, batches;
  RUN ON hashes;
  SELECT stored.position, stored.inserted_count FROM proxy.bulk_insert_batches($2, $3, $4, $5) AS stored;
$$;
COMMENT ON FUNCTION proxy.bulk_insert_batches(integer[], text, integer, integer[], jsonb[]) IS 'bulk_insert_batches on the shards of the batches, each its own';

CREATE OR REPLACE FUNCTION proxy.bulk_insert_batches_on(shard integer, expected text, of_shards integer, positions integer[], batches jsonb[])
RETURNS TABLE ("position" integer, inserted_count bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT stored.position, stored.inserted_count FROM proxy.require($2, $1, $3) AS is_right CROSS JOIN LATERAL public.bulk_insert_batches($4, $5) AS stored WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.bulk_insert_batches_on(integer, text, integer, integer[], jsonb[]) IS 'bulk_insert_batches on one shard';

CREATE OR REPLACE FUNCTION proxy.count_foreign_ids(events_json jsonb)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON proxy.hash_of_batch(events_json);
  TARGET public.count_foreign_ids;
$$;
COMMENT ON FUNCTION proxy.count_foreign_ids(jsonb) IS 'count_foreign_ids on the shard of the batch';

CREATE OR REPLACE FUNCTION proxy.get_hourly_aggregates(days_back integer, source_filter text, names text[], prefixes text[])
RETURNS TABLE (source text, hours bigint[], event_counts bigint[])
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON proxy.shards_of(source_filter, names, prefixes);
$$;
COMMENT ON FUNCTION proxy.get_hourly_aggregates(integer, text, text[], text[]) IS
  'get_scoped_aggregates on the shards of a scope: each source is one row with its hours, in no order';

CREATE OR REPLACE FUNCTION proxy.get_hourly_totals(days_back integer, source_filter text, names text[], prefixes text[])
RETURNS TABLE (hours bigint[], event_counts bigint[])
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON proxy.shards_of(source_filter, names, prefixes);
$$;
COMMENT ON FUNCTION proxy.get_hourly_totals(integer, text, text[], text[]) IS
  'get_hourly_totals on the shards of a scope: each shard is one row with all hours';

CREATE OR REPLACE FUNCTION proxy.get_source_totals(days_back integer, source_filter text, names text[], prefixes text[])
RETURNS TABLE (source text, event_count bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON proxy.shards_of(source_filter, names, prefixes);
  TARGET public.get_source_totals;
$$;
COMMENT ON FUNCTION proxy.get_source_totals(integer, text, text[], text[]) IS 'get_source_totals on the shards of a scope, shard by shard';

CREATE OR REPLACE FUNCTION proxy.prune_events(expected text, of_shards integer, older_than interval, max_rows integer)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  SELECT pruned FROM proxy.require($1, NULL, $2) AS is_right CROSS JOIN LATERAL public.prune_events($3, $4) AS pruned WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.prune_events(text, integer, interval, integer) IS 'prune_events on all shards';

CREATE OR REPLACE FUNCTION proxy.count_old_events(older_than interval)
RETURNS TABLE (old_events bigint, all_events bigint, begin_at timestamptz, end_at timestamptz)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  TARGET public.count_old_events;
$$;
COMMENT ON FUNCTION proxy.count_old_events(interval) IS 'count_old_events on all shards';

CREATE OR REPLACE FUNCTION proxy.empty_payloads(expected text, of_shards integer, older_than interval, max_rows integer, begin_time timestamptz)
RETURNS TABLE (emptied bigint, newest timestamptz)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  SELECT done.emptied, done.newest FROM proxy.require($1, NULL, $2) AS is_right CROSS JOIN LATERAL public.empty_payloads($3, $4, $5) AS done WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.empty_payloads(text, integer, interval, integer, timestamptz) IS 'empty_payloads on all shards';

CREATE OR REPLACE FUNCTION proxy.count_source(source_name text)
RETURNS TABLE (events bigint, hours bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  TARGET public.count_source;
$$;
COMMENT ON FUNCTION proxy.count_source(text) IS 'count_source on all shards, also those where the source should not be';

CREATE OR REPLACE FUNCTION proxy.remove_events(expected text, of_shards integer, source_name text, begin_time timestamptz, end_time timestamptz, max_rows integer)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  SELECT removed FROM proxy.require($1, NULL, $2) AS is_right CROSS JOIN LATERAL public.remove_events($3, $4, $5, $6) AS removed WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.remove_events(text, integer, text, timestamptz, timestamptz, integer) IS 'remove_events on all shards';

CREATE OR REPLACE FUNCTION proxy.move_events(shard integer, expected text, of_shards integer, old_source text, new_source text, max_rows integer)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT moved FROM proxy.require($2, $1, $3) AS is_right CROSS JOIN LATERAL public.move_events($4, $5, $6) AS moved WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.move_events(integer, text, integer, text, text, integer) IS 'move_events on one shard';

CREATE OR REPLACE FUNCTION proxy.read_events(shard integer, source_name text, max_rows integer)
RETURNS SETOF jsonb
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT found FROM proxy.read_events($2, $3) AS found;
$$;
COMMENT ON FUNCTION proxy.read_events(integer, text, integer) IS 'Events of a source, from one shard';

CREATE OR REPLACE FUNCTION proxy.store_events(shard integer, expected text, of_shards integer, source_name text, rows_json jsonb)
RETURNS SETOF text[]
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT ids FROM proxy.require($2, $1, $3) AS is_right CROSS JOIN LATERAL proxy.store_events($4, $5) AS ids WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.store_events(integer, text, integer, text, jsonb) IS 'Stores events of another shard on one';

CREATE OR REPLACE FUNCTION proxy.delete_events(shard integer, expected text, of_shards integer, source_name text, stored_ids text[])
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT deleted FROM proxy.require($2, $1, $3) AS is_right CROSS JOIN LATERAL proxy.delete_events($4, $5) AS deleted WHERE is_right;
$$;
COMMENT ON FUNCTION proxy.delete_events(integer, text, integer, text, text[]) IS 'Deletes events of a source on one shard';

CREATE OR REPLACE FUNCTION proxy.check_hourly_counts(begin_time timestamptz, end_time timestamptz)
RETURNS TABLE (source text, hour timestamptz, stored bigint, counted bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  TARGET public.check_hourly_counts;
$$;
COMMENT ON FUNCTION proxy.check_hourly_counts(timestamptz, timestamptz) IS 'check_hourly_counts on all shards';

CREATE OR REPLACE FUNCTION proxy.rebuild_hourly_counts()
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
  TARGET public.rebuild_hourly_counts;
$$;
COMMENT ON FUNCTION proxy.rebuild_hourly_counts() IS 'rebuild_hourly_counts on all shards';

CREATE OR REPLACE FUNCTION proxy.describe_shard(shard integer)
RETURNS TABLE (identity text, level text, number integer, shards integer, is_router boolean)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT * FROM proxy.describe_shard();
$$;
COMMENT ON FUNCTION proxy.describe_shard(integer) IS 'Which database a shard is, as it says itself';

CREATE OR REPLACE FUNCTION proxy.list_sources(shard integer)
RETURNS TABLE (source text, events bigint)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT * FROM proxy.list_sources();
$$;
COMMENT ON FUNCTION proxy.list_sources(integer) IS 'The sources of one shard and how many events each has';

-- What the programs and steepctl call. Left to choose, PL/pgSQL would plan for the parameters of each
-- call, which takes the router as long as all else that it does for a small batch.

-- events import may send events of several sources at once; they become a batch for each. To look
-- for them takes a tenth of the time that a batch of 1000 events takes, and ingest.fcgi, which
-- logs in as steep_ingest, has refused such a batch where a monitor sent it.
CREATE OR REPLACE FUNCTION public.bulk_insert_events(events_json jsonb)
RETURNS TABLE (inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  IF events_json = '[]' THEN
    PERFORM proxy.try_any(true);
    RETURN QUERY SELECT 0::bigint;
  ELSIF (session_user <> 'steep_ingest' OR current_setting('application_name') = 'steepctl events import') AND jsonb_path_exists(events_json, '$[*].source ? (@ != $first)', jsonb_build_object('first', events_json->0->'source')) THEN
    RETURN QUERY
    SELECT sum(stored.inserted_count)::bigint
    FROM (
      SELECT array_agg(proxy.hash_of_batch(events)) AS hashes, array_agg(number::integer) AS positions, array_agg(events) AS batches
      FROM (
        SELECT row_number() OVER () AS number, jsonb_agg(event ORDER BY place) AS events
        FROM jsonb_array_elements(events_json) WITH ORDINALITY AS element (event, place)
        GROUP BY event->>'source'
      ) AS by_source
    ) AS grouped
    CROSS JOIN LATERAL proxy.bulk_insert_batches(hashes, proxy.level(), proxy.shards(), positions, batches) AS stored;
  ELSE
    RETURN QUERY
    SELECT stored.inserted_count FROM proxy.bulk_insert_events(proxy.level(), proxy.shards(), events_json) AS stored;
  END IF;
END
$$;

-- PL/Proxy fails as a whole where one shard can't be reached, has no room or may only be read,
-- although the others have stored their part. So then each shard is asked alone, and a batch of
-- one that can store nothing has no count (NULL). What was stored the first time is a duplicate
-- now. One whose table is locked is not asked again: each time takes the whole lock_timeout.
CREATE OR REPLACE FUNCTION public.bulk_insert_batches(positions integer[], batches jsonb[])
RETURNS TABLE ("position" integer, inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  shard integer;
  its_positions integer[];
  its_batches jsonb[];
BEGIN
  IF cardinality(positions) IS DISTINCT FROM cardinality(batches) THEN
    RAISE EXCEPTION 'positions and batches must have the same length'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  BEGIN
    RETURN QUERY
    SELECT stored.position, stored.inserted_count
    FROM proxy.bulk_insert_batches(
      ARRAY(SELECT proxy.hash_of_batch(events) FROM unnest(batches) AS events), proxy.level(), proxy.shards(), positions, batches
    ) AS stored;
    RETURN;
  EXCEPTION WHEN internal_error OR connection_exception OR admin_shutdown OR crash_shutdown OR cannot_connect_now
    OR insufficient_resources OR io_error OR read_only_sql_transaction THEN
    NULL;
  END;

  FOR shard, its_positions, its_batches IN
    SELECT proxy.hash_of_batch(batch.events) & (proxy.shards() - 1), array_agg(batch.position), array_agg(batch.events)
    FROM unnest(positions, batches) AS batch (position, events)
    GROUP BY 1
  LOOP
    BEGIN
      RETURN QUERY
      SELECT stored.position, stored.inserted_count
      FROM proxy.bulk_insert_batches_on(shard, proxy.level(), proxy.shards(), its_positions, its_batches) AS stored;
    EXCEPTION WHEN internal_error OR connection_exception OR admin_shutdown OR crash_shutdown OR cannot_connect_now
      OR insufficient_resources OR io_error OR read_only_sql_transaction THEN
      RETURN QUERY SELECT its.position, NULL::bigint FROM unnest(its_positions) AS its (position);
    END;
  END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION public.count_foreign_ids(events_json jsonb)
RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT sum(ids)::bigint FROM proxy.count_foreign_ids(events_json) AS ids; $$;

-- Sorted by one number, since to compare sources as well would take twice as long: the hour, and
-- below it the place of the source among all, from the end. Of infinity it is NULL, which comes
-- first. Without a setting of its own, so that PostgreSQL inlines it.
CREATE OR REPLACE FUNCTION proxy.merge_aggregates(days_back integer, source_filter text, names text[], prefixes text[])
RETURNS TABLE (source text, date date, hour integer, event_count bigint)
LANGUAGE sql STABLE
AS $$
  SELECT merged.source, coalesce(date '2000-01-01' + (place >> 29)::integer, 'infinity'), (place >> 24 & 31)::integer, merged.event_count
  FROM (
    SELECT unnest(hours) << 24 | from_end AS place, unnest(event_counts) AS event_count, sent.source
    FROM (
      SELECT source COLLATE "C" AS source, hours, event_counts, row_number() OVER (ORDER BY source COLLATE "C" DESC) AS from_end
      FROM proxy.get_hourly_aggregates(days_back, source_filter, names, prefixes)
    ) AS sent
    ORDER BY place DESC, sent.source
  ) AS merged
$$;
COMMENT ON FUNCTION proxy.merge_aggregates(integer, text, text[], text[]) IS 'What the shards of a scope count, as get_scoped_aggregates returns it';

-- A month of 100 sources is sorted in 16 MB of memory: without files, two thirds of the time.
CREATE OR REPLACE FUNCTION public.get_hourly_aggregates(days_back integer DEFAULT 7, source_filter text DEFAULT NULL)
RETURNS TABLE (source text, date date, hour integer, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
SET work_mem = '16MB'
AS $$
#variable_conflict use_column
BEGIN
  IF days_back = 0 AND source_filter = '' THEN
    PERFORM proxy.try_any(false);
    RETURN;
  END IF;
  RETURN QUERY
  SELECT source, date, hour, event_count FROM proxy.merge_aggregates(days_back, source_filter, NULL, NULL);
END
$$;

CREATE OR REPLACE FUNCTION public.get_scoped_aggregates(
  days_back integer DEFAULT 7, source_filter text DEFAULT NULL, names text[] DEFAULT NULL, prefixes text[] DEFAULT NULL
)
RETURNS TABLE (source text, date date, hour integer, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
SET work_mem = '16MB'
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT source, date, hour, event_count FROM proxy.merge_aggregates(days_back, source_filter, names, prefixes);
END
$$;

CREATE OR REPLACE FUNCTION public.get_hourly_totals(
  days_back integer DEFAULT 7, source_filter text DEFAULT NULL, names text[] DEFAULT NULL, prefixes text[] DEFAULT NULL
)
RETURNS TABLE (date date, hour integer, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT coalesce(date '2000-01-01' + (place >> 5)::integer, 'infinity'), (place & 31)::integer, sum(event_count)::bigint
  FROM (
    SELECT unnest(hours) AS place, unnest(event_counts) AS event_count
    FROM proxy.get_hourly_totals(days_back, source_filter, names, prefixes)
  ) AS sent
  GROUP BY place
  ORDER BY place DESC;
END
$$;

CREATE OR REPLACE FUNCTION public.get_source_totals(
  days_back integer DEFAULT 7, source_filter text DEFAULT NULL, names text[] DEFAULT NULL, prefixes text[] DEFAULT NULL
)
RETURNS TABLE (source text, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT source, event_count FROM proxy.get_source_totals(days_back, source_filter, names, prefixes)
  ORDER BY event_count DESC, source COLLATE "C";
END
$$;

CREATE OR REPLACE FUNCTION public.prune_events(older_than interval DEFAULT '90 days', max_rows integer DEFAULT 10000)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT sum(pruned)::bigint FROM proxy.prune_events(proxy.level(), proxy.shards(), older_than, max_rows) AS pruned; $$;

CREATE OR REPLACE FUNCTION public.count_old_events(older_than interval DEFAULT '90 days')
RETURNS TABLE (old_events bigint, all_events bigint, begin_at timestamptz, end_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT sum(old.old_events)::bigint, sum(old.all_events)::bigint, min(old.begin_at), max(old.end_at)
  FROM proxy.count_old_events(older_than) AS old;
$$;

-- The next step begins where the shard is that is least far; the others pass again over what is
-- empty already.
CREATE OR REPLACE FUNCTION public.empty_payloads(
  older_than interval DEFAULT '7 days', max_rows integer DEFAULT 10000, begin_at timestamptz DEFAULT '-infinity'
)
RETURNS TABLE (emptied bigint, newest timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT sum(done.emptied)::bigint, min(done.newest) FILTER (WHERE done.emptied > 0)
  FROM proxy.empty_payloads(proxy.level(), proxy.shards(), older_than, max_rows, begin_at) AS done;
$$;

CREATE OR REPLACE FUNCTION public.count_source(source_name text, OUT events bigint, OUT hours bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT sum(counted.events)::bigint, sum(counted.hours)::bigint FROM proxy.count_source(source_name) AS counted;
$$;

CREATE OR REPLACE FUNCTION public.remove_events(
  source_name text, begin_at timestamptz DEFAULT NULL, end_at timestamptz DEFAULT NULL, max_rows integer DEFAULT 10000
)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT sum(removed)::bigint
  FROM proxy.remove_events(proxy.level(), proxy.shards(), source_name, begin_at, end_at, max_rows) AS removed;
$$;

-- Stored on the one before they are deleted on the other. A rename that ends in between has them
-- twice until it is run again. An event whose id another source of the new shard has stays.
CREATE OR REPLACE FUNCTION public.move_events(old_source text, new_source text, max_rows integer DEFAULT 5000)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  new_shard CONSTANT integer := proxy.hash(new_source) & (proxy.shards() - 1);
  old_shard integer;
  found jsonb;
  ids text[];
  moved bigint := 0;
BEGIN
  IF (old_source <> new_source) IS NOT TRUE OR max_rows IS NULL OR max_rows < 1 THEN
    RAISE EXCEPTION 'old_source and new_source must differ, and max_rows be at least 1'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- Wherever they are, also where they should not be.
  FOR old_shard IN 0 .. proxy.shards() - 1 LOOP
    IF old_shard = new_shard THEN
      moved := moved + (SELECT step FROM proxy.move_events(old_shard, proxy.level(), proxy.shards(), old_source, new_source, max_rows) AS step);
    ELSE
      found := (SELECT events FROM proxy.read_events(old_shard, old_source, max_rows) AS events);
      CONTINUE WHEN found = '[]';
      ids := (SELECT stored FROM proxy.store_events(new_shard, proxy.level(), proxy.shards(), new_source, found) AS stored);
      moved := moved + (SELECT deleted FROM proxy.delete_events(old_shard, proxy.level(), proxy.shards(), old_source, ids) AS deleted);
    END IF;
  END LOOP;
  RETURN moved;
END
$$;

CREATE OR REPLACE FUNCTION public.check_hourly_counts(begin_at timestamptz DEFAULT '-infinity', end_at timestamptz DEFAULT NULL)
RETURNS TABLE (source text, hour timestamptz, stored bigint, counted bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT wrong.source, wrong.hour, wrong.stored, wrong.counted FROM proxy.check_hourly_counts(begin_at, end_at) AS wrong
  ORDER BY wrong.source COLLATE "C", wrong.hour;
$$;

CREATE OR REPLACE FUNCTION public.rebuild_hourly_counts()
RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT sum(events)::bigint FROM proxy.rebuild_hourly_counts() AS events; $$;

-- No query would find an event that is stored here.
CREATE OR REPLACE FUNCTION proxy.refuse_rows()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'this database is a router: events are stored in its shards'
    USING ERRCODE = 'internal_error', HINT = 'Run steepctl shards init, with the same shards, after a migration.';
END
$$;
COMMENT ON FUNCTION proxy.refuse_rows() IS 'Trigger: refuses rows in the table of events of a router';
CREATE OR REPLACE TRIGGER refuse_rows BEFORE INSERT ON public.events
  FOR EACH ROW EXECUTE FUNCTION proxy.refuse_rows();

-- The programs ask for nothing to see whether they are ready, and they are for the sources of one
-- shard even if another can't be reached. So any shard may answer, the first of them at random.
CREATE OR REPLACE FUNCTION proxy.ask_nothing(shard integer)
RETURNS SETOF bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT event_count FROM public.get_hourly_aggregates(0, '');
$$;
COMMENT ON FUNCTION proxy.ask_nothing(integer) IS 'Asks one shard for counts of no source';

CREATE OR REPLACE FUNCTION proxy.try_any(is_writing boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  first CONSTANT integer := floor(random() * proxy.shards());
  shard integer;
BEGIN
  FOR attempt IN 1 .. proxy.shards() LOOP
    shard := (first + attempt) % proxy.shards();
    BEGIN
      IF is_writing THEN
        PERFORM proxy.bulk_insert_batches_on(shard, proxy.level(), proxy.shards(), '{}', '{}');
      ELSE
        PERFORM proxy.ask_nothing(shard);
      END IF;
      RETURN;
    EXCEPTION WHEN internal_error OR connection_exception OR admin_shutdown OR crash_shutdown OR cannot_connect_now
      OR insufficient_resources OR io_error OR read_only_sql_transaction THEN
      IF attempt = proxy.shards() THEN
        RAISE;
      END IF;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION proxy.try_any(boolean) IS 'Stores an empty batch in any shard, or asks any for nothing; an error if none answers';

-- What steepctl calls where it reads the tables of one database. Times are passed on as text.

CREATE OR REPLACE FUNCTION proxy.count_hours()
RETURNS TABLE (hour timestamptz, event_count bigint)
LANGUAGE plproxy SECURITY DEFINER
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
$$;
COMMENT ON FUNCTION proxy.count_hours() IS 'How many events each hour has, shard by shard';

CREATE OR REPLACE FUNCTION proxy.count_events(source_name text, begin_at timestamptz, end_at timestamptz)
RETURNS TABLE (source text, day date, events bigint)
LANGUAGE plproxy SECURITY DEFINER
SET datestyle = ISO
SET timezone = 'UTC'
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
$$;
COMMENT ON FUNCTION proxy.count_events(text, timestamptz, timestamptz) IS 'The number of events by source and day of UTC, shard by shard';

CREATE OR REPLACE FUNCTION proxy.describe_sources()
RETURNS TABLE (source text, events bigint, first timestamptz, newest timestamptz, bytes bigint)
LANGUAGE plproxy SECURITY DEFINER
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
$$;
COMMENT ON FUNCTION proxy.describe_sources() IS 'The sources as steepctl source list prints them, shard by shard';

CREATE OR REPLACE FUNCTION proxy.report_sources()
RETURNS TABLE (source text, events bigint, newest timestamptz, ahead bigint)
LANGUAGE plproxy SECURITY DEFINER
AS $$
  CLUSTER 'steep';
  RUN ON ALL;
$$;
COMMENT ON FUNCTION proxy.report_sources() IS 'The sources as steepctl status prints them, shard by shard';

CREATE OR REPLACE FUNCTION proxy.count_blocks(shard integer)
RETURNS bigint
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT * FROM proxy.count_blocks();
$$;
COMMENT ON FUNCTION proxy.count_blocks(integer) IS 'How many blocks the table of events has in one shard';

CREATE OR REPLACE FUNCTION proxy.has_events(shard integer, source_name text, block bigint, blocks bigint)
RETURNS boolean
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT * FROM proxy.has_events($2, $3, $4);
$$;
COMMENT ON FUNCTION proxy.has_events(integer, text, bigint, bigint) IS 'Whether some blocks of one shard have events of a source';

-- No index begins with the source: it reads all there is, 80 MB at a time.
CREATE OR REPLACE FUNCTION proxy.has_events(source_name text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  shard integer;
  block bigint;
BEGIN
  FOR shard IN 0 .. proxy.shards() - 1 LOOP
    FOR block IN 0 .. proxy.count_blocks(shard) BY 10000 LOOP
      IF proxy.has_events(shard, source_name, block, 10000) THEN
        RETURN true;
      END IF;
    END LOOP;
  END LOOP;
  RETURN false;
END
$$;
COMMENT ON FUNCTION proxy.has_events(text) IS 'Whether any shard has events of a source, also such that are not counted';

CREATE OR REPLACE FUNCTION proxy.read_page(
  shard integer, source_name text, after timestamptz, begin_at timestamptz, end_at timestamptz, max_rows integer
)
RETURNS TABLE (line text, at timestamptz)
LANGUAGE plproxy
AS $$
  CLUSTER 'steep';
  RUN ON shard;
  SELECT * FROM proxy.read_page($2, $3, $4, $5, $6);
$$;
COMMENT ON FUNCTION proxy.read_page(integer, text, timestamptz, timestamptz, timestamptz, integer) IS 'Some events of one shard, the oldest first';

CREATE OR REPLACE FUNCTION proxy.export_page(
  shard integer, source_name text, after timestamptz, begin_at timestamptz, end_at timestamptz, max_rows integer DEFAULT 1000
)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET datestyle = ISO
SET timezone = 'UTC'
AS $$
DECLARE
  line text;
  last_at timestamptz;
BEGIN
  FOR line, last_at IN
    SELECT page.line, page.at FROM proxy.read_page(shard, source_name, after, begin_at, end_at, max_rows) AS page
  LOOP
    RETURN NEXT line;
  END LOOP;
  PERFORM set_config('steep.exported_until', coalesce(last_at::text, ''), true);
END
$$;
COMMENT ON FUNCTION proxy.export_page(integer, text, timestamptz, timestamptz, timestamptz, integer) IS
  'Returns some events of one shard as JSON, those that follow a time, and sets steep.exported_until to the time to continue after, empty if there are no more';

-- One fault a row; none if all is well. What a connection string contains is not printed.
CREATE OR REPLACE FUNCTION proxy.check_shards()
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  given CONSTANT integer := (SELECT count(*) FROM pg_foreign_server CROSS JOIN LATERAL unnest(srvoptions) AS option WHERE srvname = 'steep' AND option ~ '^p[0-9]+=');
  own_level CONSTANT text := (SELECT max(name COLLATE "C") FROM public.schema_migrations);
  own_identity CONSTANT text := (
    SELECT concat_ws(' ', system_identifier, pg_database.oid, extract(epoch FROM pg_postmaster_start_time()))
    FROM pg_control_system(), pg_database WHERE datname = current_database());
  shard integer;
  described record;
  identities text[] := '{}';
  wrong record;
BEGIN
  IF own_level <> proxy.level() THEN
    RETURN NEXT format('The router has the migration %s, but its functions are of %s; run steepctl shards init again.', own_level, proxy.level());
  END IF;
  IF given <> proxy.shards() THEN
    RETURN NEXT format('The router was made for %s shards and has the connection strings of %s.', proxy.shards(), given);
  END IF;
  RETURN QUERY
  SELECT format('The connection string of shard %s contains a password, which every role can read; give it to steepctl shards init again.', (regexp_match(option, '^p([0-9]+)='))[1])
  FROM pg_foreign_server CROSS JOIN LATERAL unnest(srvoptions) AS option
  WHERE srvname = 'steep' AND option ~* '(password[[:space:]]*=|://[^/]*:[^/]*@)';

  FOR shard IN 0 .. given - 1 LOOP
    BEGIN
      SELECT * INTO STRICT described FROM proxy.describe_shard(shard);
    EXCEPTION
      WHEN undefined_function OR invalid_schema_name OR insufficient_privilege THEN
        RETURN NEXT format('Shard %s was not made by steepctl shards init.', shard);
        CONTINUE;
      WHEN OTHERS THEN
        RETURN NEXT format('Shard %s cannot be reached (SQLSTATE %s).', shard, SQLSTATE);
        CONTINUE;
    END;
    IF described.identity = own_identity OR described.is_router THEN
      RETURN NEXT format('Shard %s is %s.', shard, CASE WHEN described.identity = own_identity THEN 'the router itself' ELSE 'a router' END);
      CONTINUE;
    ELSIF described.identity = ANY (identities) THEN
      RETURN NEXT format('Shard %s is the same database as shard %s.', shard, array_position(identities, described.identity) - 1);
      CONTINUE;
    END IF;
    identities[shard + 1] := described.identity;
    IF described.level IS DISTINCT FROM proxy.level() THEN
      RETURN NEXT format('Shard %s has the migration %s, the router %s; nothing is stored in it until they are equal.',
        shard, coalesce(described.level, 'none'), proxy.level());
    END IF;
    IF described.shards IS DISTINCT FROM given THEN
      RETURN NEXT format('Shard %s was made for %s shards, but the router has %s.', shard, coalesce(described.shards::text, 'no'), given);
    ELSIF described.number IS DISTINCT FROM shard THEN
      RETURN NEXT format('Shard %s was made as shard %s.', shard, described.number);
    END IF;
    FOR wrong IN
      SELECT listed.source, listed.events, proxy.hash(listed.source) & (given - 1) AS right_shard
      FROM proxy.list_sources(shard) AS listed
      WHERE proxy.hash(listed.source) & (given - 1) <> shard
      ORDER BY listed.source COLLATE "C"
    LOOP
      RETURN NEXT format('Shard %s has %s events of %s, which belongs to shard %s.',
        shard, wrong.events, regexp_replace(wrong.source, '[[:cntrl:]]', '?', 'g'), wrong.right_shard);
    END LOOP;
  END LOOP;
END
$$;
COMMENT ON FUNCTION proxy.check_shards() IS 'Returns what is wrong with the shards, a sentence each; nothing if all is well';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA proxy FROM PUBLIC;
-- It may read all there is, and steepctl status as well.
GRANT USAGE ON SCHEMA proxy TO steep_backup;
GRANT EXECUTE ON FUNCTION proxy.shards(), proxy.check_shards(), proxy.count_hours(), proxy.count_events(text, timestamptz, timestamptz),
  proxy.describe_sources(), proxy.report_sources(), proxy.has_events(text),
  proxy.export_page(integer, text, timestamptz, timestamptz, timestamptz, integer) TO steep_backup;
SELECT format('ALTER FUNCTION %s OWNER TO steep_owner', oid::regprocedure)
FROM pg_catalog.pg_proc WHERE pronamespace = 'proxy'::regnamespace \gexec
COMMIT;
