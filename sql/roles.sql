-- The roles, in the only place that states them. They belong to the cluster, not to a
-- database: sql/migrate runs this file before a database's pending migrations, and
-- steepctl roles prints it for an empty cluster that a dump is to be restored into, since
-- a dump contains no roles. Run it as a superuser, as often as you like. It sets no passwords.

DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['steep_owner', 'service_role', 'steep_ingest', 'steep_query', 'steep_backup', 'steep_prune'] LOOP
    IF to_regrole(role_name) IS NULL THEN
      EXECUTE format('CREATE ROLE %I', role_name);
    END IF;
  END LOOP;
END
$$;

-- BYPASSRLS: row level security is forced on every table and there is no policy, so a
-- SECURITY DEFINER function of any other owner would see no rows.
ALTER ROLE steep_owner NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS;
ALTER ROLE steep_ingest LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE steep_query LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE steep_prune LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- BYPASSRLS: pg_dump refuses a table of which it might not see every row.
ALTER ROLE steep_backup LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS;
-- It may exist already, made by somebody else, whose other attributes are kept.
ALTER ROLE service_role BYPASSRLS;

DO $$
BEGIN
  IF NOT pg_has_role('steep_backup', 'pg_read_all_data', 'MEMBER') THEN
    GRANT pg_read_all_data TO steep_backup;
  END IF;
END
$$;

COMMENT ON ROLE steep_owner IS 'steep: owns all tables and functions; cannot log in';
COMMENT ON ROLE steep_ingest IS 'steep: the program that stores events';
COMMENT ON ROLE steep_query IS 'steep: the program that reads hourly aggregates';
COMMENT ON ROLE steep_prune IS 'steep: deletes old events';
COMMENT ON ROLE steep_backup IS 'steep: reads everything, for dumps';

ALTER ROLE steep_backup SET default_transaction_read_only = on;

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
      -- The server's log must not quote what a client sent: not as a parameter,
      -- in an error's DETAIL or CONTEXT, or in a plan.
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

-- The message of an error may quote too, for example an invalid timestamp. "log" ranks
-- above "error", so errors are not logged; the program logs the SQLSTATE of each.
ALTER ROLE steep_ingest SET log_min_messages = 'log';
