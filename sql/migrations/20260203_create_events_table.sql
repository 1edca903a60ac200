-- The data model's table and functions, made safe for a plain PostgreSQL.
-- To be run by a superuser and in one transaction, as sql/migrate does.

-- Roles belong to the cluster: another database of it may have made them
-- already, and a service_role may be there from elsewhere.
DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['steep_owner', 'service_role', 'steep_ingest', 'steep_query'] LOOP
    IF to_regrole(role_name) IS NULL THEN
      EXECUTE format('CREATE ROLE %I', role_name);
    END IF;
  END LOOP;
END
$$;

-- BYPASSRLS, because a definer function of any other owner would see no row
-- behind a forced row level security without a policy, and say nothing.
ALTER ROLE steep_owner NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS;
ALTER ROLE steep_ingest LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE steep_query LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- Whether it may log in is for whoever made it to say.
ALTER ROLE service_role BYPASSRLS;

COMMENT ON ROLE steep_owner IS 'steep: owns all tables and functions; nobody logs in as it';
COMMENT ON ROLE steep_ingest IS 'steep: the program that stores events';
COMMENT ON ROLE steep_query IS 'steep: the program that reads hourly aggregates';

DO $$
DECLARE
  role_name text;
  setting text[];
BEGIN
  FOREACH role_name IN ARRAY ARRAY['steep_ingest', 'steep_query'] LOOP
    FOREACH setting SLICE 1 IN ARRAY ARRAY[
      ['timezone', 'UTC'],
      ['datestyle', 'ISO, YMD'],
      ['bytea_output', 'hex'],
      ['default_transaction_isolation', 'read committed'],
      ['synchronous_commit', 'on'],
      ['statement_timeout', '10s'],
      ['lock_timeout', '5s'],
      ['idle_in_transaction_session_timeout', '10s'],
      -- The server's log is to quote nothing that a client sent: not as a
      -- parameter, nor in an error's DETAIL or CONTEXT, nor in a plan.
      ['log_statement', 'none'],
      ['log_min_duration_statement', '-1'],
      ['log_min_error_statement', 'panic'],
      ['log_parameter_max_length', '0'],
      ['log_parameter_max_length_on_error', '0'],
      ['log_error_verbosity', 'terse'],
      ['auto_explain.log_min_duration', '-1']
    ] LOOP
      EXECUTE format('ALTER ROLE %I SET %s = %L', role_name, setting[1], setting[2]);
    END LOOP;
  END LOOP;
END
$$;

-- An error's first line may quote as well: a timestamp that does not cast is in
-- it. "log" ranks above "error"; the program logs each SQLSTATE it is given.
ALTER ROLE steep_ingest SET log_min_messages = 'log';

DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO steep_ingest, steep_query', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO steep_owner;
GRANT USAGE ON SCHEMA public TO service_role, steep_ingest, steep_query;

-- PostgreSQL lets everybody write large objects and into the WAL; who may only
-- call a function of ours is not to.
REVOKE EXECUTE ON FUNCTION
  pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid), pg_catalog.lo_from_bytea(oid, bytea),
  pg_catalog.pg_logical_emit_message(boolean, text, text), pg_catalog.pg_logical_emit_message(boolean, text, bytea)
FROM PUBLIC;

ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;

SET ROLE steep_owner;

CREATE TABLE public.events (
  id text PRIMARY KEY CHECK (octet_length(id) <= 255),
  source text NOT NULL CHECK (octet_length(source) <= 255),
  timestamp timestamptz NOT NULL,
  event_type text NOT NULL CHECK (event_type IN (
    'session', 'activity', 'tool', 'agent', 'summary', 'error'
  )),
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE public.events IS 'Privacy-filtered events from monitors; written through bulk_insert_events';
COMMENT ON COLUMN public.events.id IS 'Identifier given by the monitor, evt_ and a suffix; unique across sources';
COMMENT ON COLUMN public.events.source IS 'Name of the monitor that sent the event';
COMMENT ON COLUMN public.events.timestamp IS 'When the event occurred, as the monitor says';
COMMENT ON COLUMN public.events.event_type IS 'What kind of event this is: one of six';
COMMENT ON COLUMN public.events.payload IS 'The event itself, as the monitor sent it';
COMMENT ON COLUMN public.events.created_at IS 'When the event was stored';

CREATE INDEX idx_events_timestamp ON public.events (timestamp DESC);
CREATE INDEX idx_events_source ON public.events (source);
CREATE INDEX idx_events_source_timestamp ON public.events (source, timestamp DESC);

-- Without a policy nobody passes but who bypasses row level security.
ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.events FORCE ROW LEVEL SECURITY;

GRANT ALL ON TABLE public.events TO service_role;

-- Rows go in in one order, whoever sends them, so that two batches with the same
-- ids wait for each other and do not deadlock; position keeps the first of two
-- events with one id.
CREATE FUNCTION public.bulk_insert_events(events_json jsonb)
RETURNS TABLE (inserted_count bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  WITH inserted AS (
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT
      event->>'id',
      event->>'source',
      (event->>'timestamp')::timestamptz,
      coalesce(event->>'eventType', event->>'type'),
      event->'payload'
    FROM jsonb_array_elements(events_json) WITH ORDINALITY AS batch (event, position)
    ORDER BY (event->>'id') COLLATE "C", position
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
  )
  SELECT count(*) FROM inserted;
$$;

COMMENT ON FUNCTION public.bulk_insert_events(jsonb) IS
  'Stores an array of events, all or none, and returns how many were new; an id that is there already is skipped';

REVOKE ALL ON FUNCTION public.bulk_insert_events(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) TO service_role, steep_ingest;

CREATE FUNCTION public.get_hourly_aggregates(days_back integer DEFAULT 7, source_filter text DEFAULT NULL)
RETURNS TABLE (source text, date date, hour integer, event_count bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT
    e.source,
    utc.hour::date,
    extract(hour FROM utc.hour)::integer,
    count(*)
  FROM public.events AS e
  CROSS JOIN LATERAL (VALUES (date_trunc('hour', e.timestamp AT TIME ZONE 'UTC'))) AS utc (hour)
  WHERE e.timestamp >= now() - make_interval(days => days_back)
    AND (source_filter IS NULL OR e.source = source_filter)
  GROUP BY e.source, utc.hour
  ORDER BY utc.hour DESC, e.source COLLATE "C";
$$;

COMMENT ON FUNCTION public.get_hourly_aggregates(integer, text) IS
  'Events counted by source and UTC hour from now() - days_back days on, of one source or (NULL) of all; newest hour first, then by source in byte order';

REVOKE ALL ON FUNCTION public.get_hourly_aggregates(integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.get_hourly_aggregates(integer, text) TO service_role, steep_query;

RESET ROLE;
