-- A role for the daily run that deletes old events: it may do that and no more.

DO $$
BEGIN
  IF to_regrole('steep_prune') IS NULL THEN
    CREATE ROLE steep_prune;
  END IF;
END
$$;

ALTER ROLE steep_prune LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

COMMENT ON ROLE steep_prune IS 'steep: deletes old events';

DO $$
BEGIN
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO steep_prune', current_database());
END
$$;

GRANT USAGE ON SCHEMA public TO steep_prune;
GRANT EXECUTE ON FUNCTION public.prune_events(interval, integer) TO steep_prune;
GRANT EXECUTE ON FUNCTION public.empty_payloads(interval, integer, timestamptz) TO steep_prune;
