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
-- SQL text may be logged by others, so it has the verifier of the password where the server can
-- be given one; a superuser's session is not logged, see above.
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
  is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  number integer NOT NULL,
  shards integer NOT NULL CHECK (number >= 0 AND number < shards)
);
COMMENT ON TABLE proxy.place IS 'Which of the shards this is';
COMMENT ON COLUMN proxy.place.is_only IS 'Always true: there is one row';
COMMENT ON COLUMN proxy.place.number IS 'The number of this shard, from 0';
COMMENT ON COLUMN proxy.place.shards IS 'How many shards there are';
ALTER TABLE proxy.place ENABLE ROW LEVEL SECURITY;
ALTER TABLE proxy.place FORCE ROW LEVEL SECURITY;

INSERT INTO proxy.place (number, shards) VALUES (:number, :shards)
ON CONFLICT (is_only) DO UPDATE SET number = excluded.number, shards = excluded.shards;

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

-- One function each, since PL/Proxy has each statement parsed and planned anew.
CREATE OR REPLACE FUNCTION proxy.bulk_insert_events(expected text, of_shards integer, events_json jsonb)
RETURNS TABLE (inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
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
AS $$
BEGIN
  PERFORM proxy.require(expected, NULL, of_shards);
  RETURN QUERY SELECT stored.position, stored.inserted_count FROM public.bulk_insert_batches(positions, batches) AS stored;
END
$$;
COMMENT ON FUNCTION proxy.bulk_insert_batches(text, integer, integer[], jsonb[]) IS 'bulk_insert_batches, if this is a shard that the router expects';

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
