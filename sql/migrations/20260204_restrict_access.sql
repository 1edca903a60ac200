-- Who may connect, and what PUBLIC may not do.

DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO steep_ingest, steep_query, steep_backup, steep_prune', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO service_role, steep_ingest, steep_query, steep_prune;

-- PostgreSQL lets every role create large objects and write messages into the WAL. Looked
-- up by name, because their arguments differ between versions.
DO $$
DECLARE
  writer regprocedure;
BEGIN
  FOR writer IN
    SELECT oid FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message')
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', writer);
  END LOOP;
END
$$;

-- For functions created later; each migration also revokes explicitly.
ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
