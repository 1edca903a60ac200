-- Who may connect. What PUBLIC may not do is revoked by sql/migrate, see excess.sql.

DO $$
BEGIN
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO steep_ingest, steep_query, steep_backup, steep_prune', current_database());
END
$$;

GRANT USAGE ON SCHEMA public TO service_role, steep_ingest, steep_query, steep_prune;

-- For functions created later; each migration also revokes explicitly.
ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
