-- A role for dumps: it reads everything and changes nothing. Nobody can log in as it
-- until pg_hba.conf, a password or an ident map lets somebody.

DO $$
BEGIN
  IF to_regrole('steep_backup') IS NULL THEN
    CREATE ROLE steep_backup;
  END IF;
END
$$;

-- BYPASSRLS, because pg_dump refuses tables of which it would see a part only.
ALTER ROLE steep_backup LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS;
ALTER ROLE steep_backup SET default_transaction_read_only = on;
DO $$
BEGIN
  IF NOT pg_has_role('steep_backup', 'pg_read_all_data', 'MEMBER') THEN
    GRANT pg_read_all_data TO steep_backup;
  END IF;
END
$$;

COMMENT ON ROLE steep_backup IS 'steep: reads everything, for dumps';

DO $$
BEGIN
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO steep_backup', current_database());
END
$$;
