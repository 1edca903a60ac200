-- What PUBLIC may do in this database and should not. sql/migrate revokes it each time, as
-- an upgrade of PostgreSQL or a restore can bring it back; steepctl status reports it.
-- :row   the columns to print, of (problem, statement)

SELECT :row
FROM (
  SELECT format('PUBLIC has privileges on database %s', datname),
         format('REVOKE ALL ON DATABASE %I FROM PUBLIC;', datname)
  FROM pg_catalog.pg_database
  WHERE datname = current_database()
    AND EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)
  UNION ALL
  SELECT 'PUBLIC has privileges on schema public', 'REVOKE ALL ON SCHEMA public FROM PUBLIC;'
  FROM pg_catalog.pg_namespace
  WHERE nspname = 'public'
    AND EXISTS (SELECT FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) WHERE grantee = 0)
  UNION ALL
  -- PostgreSQL lets every role create large objects and write messages into the WAL. Looked
  -- up by name, because their arguments differ between versions: a dump that repeated the
  -- REVOKE would fail in another version. pg_dump leaves out what pg_init_privs states.
  SELECT format('PUBLIC can execute %s', oid::regprocedure),
         format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; '
                'DELETE FROM pg_catalog.pg_init_privs WHERE objoid = %s AND classoid = ''pg_catalog.pg_proc''::regclass; '
                'INSERT INTO pg_catalog.pg_init_privs SELECT oid, tableoid, 0, ''i'', proacl FROM pg_catalog.pg_proc WHERE oid = %2$s;',
                oid::regprocedure, oid)
  FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message')
    AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
) AS excess (problem, statement)
ORDER BY problem;
