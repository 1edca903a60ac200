-- What differs from the access that a new installation has, and the statements that mend it.
-- An upgrade of PostgreSQL or a restore may be the cause. It is one SELECT: sql/migrate runs
-- the statements, status.sql reports the sentences. A row without a sentence is for a grant
-- that is missing, which status.sql reports itself.
--
-- PostgreSQL lets every role create large objects and write messages into the WAL. A dump
-- must not contain a REVOKE of these functions, since another version's may have other
-- arguments: pg_upgrade and pg_restore stop at it, and the dump method of pg_upgradecluster
-- ignores it. pg_dump omits privileges that pg_init_privs records as those of a new cluster,
-- so they are recorded there. A restored database has neither until migrate runs.
SELECT
  CASE WHEN is_public THEN format('PUBLIC can execute %s', signature)
    ELSE format('A dump contains the privileges of %s, which another version of PostgreSQL may refuse', signature)
  END AS sentence,
  format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', signature) AS statement,
  CASE WHEN NOT is_initial THEN format(
    'INSERT INTO pg_catalog.pg_init_privs'
    ' SELECT oid, tableoid, 0, ''i'', ARRAY[makeaclitem(proowner, proowner, ''EXECUTE'', false)]'
    ' FROM pg_catalog.pg_proc WHERE oid = %s', oid)
  END AS next_statement
FROM (
  SELECT oid, oid::regprocedure::text AS signature,
    EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0) AS is_public,
    EXISTS (SELECT FROM pg_catalog.pg_init_privs WHERE objoid = pg_proc.oid AND classoid = pg_proc.tableoid) AS is_initial
  FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message')
) AS writers
WHERE is_public OR NOT is_initial

UNION ALL
SELECT CASE WHEN is_public THEN 'PUBLIC can use the database' END,
  format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()),
  format('GRANT CONNECT ON DATABASE %I TO steep_ingest, steep_query, steep_backup, steep_prune', current_database())
FROM (
  SELECT EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0) AS is_public
  FROM pg_catalog.pg_database WHERE datname = current_database()
) AS database
WHERE is_public OR EXISTS (
  SELECT FROM pg_catalog.pg_roles
  WHERE rolname IN ('steep_ingest', 'steep_query', 'steep_backup', 'steep_prune')
    AND NOT has_database_privilege(oid, current_database(), 'CONNECT')
)

UNION ALL
SELECT CASE WHEN is_public THEN 'PUBLIC can use the schema public' END,
  'REVOKE ALL ON SCHEMA public FROM PUBLIC',
  'GRANT USAGE ON SCHEMA public TO service_role, steep_ingest, steep_query, steep_prune'
FROM (
  SELECT EXISTS (SELECT FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) WHERE grantee = 0) AS is_public
  FROM pg_catalog.pg_namespace WHERE nspname = 'public'
) AS schema
WHERE is_public OR EXISTS (
  SELECT FROM pg_catalog.pg_roles
  WHERE rolname IN ('service_role', 'steep_ingest', 'steep_query', 'steep_prune')
    AND NOT has_schema_privilege(oid, 'public', 'USAGE')
)

UNION ALL
SELECT format('PUBLIC can execute %s', oid::regprocedure),
  format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure), NULL
FROM pg_catalog.pg_proc
WHERE pronamespace = 'public'::regnamespace AND proowner = to_regrole('steep_owner')
  AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)

-- Each migration also revokes explicitly.
UNION ALL
SELECT 'PUBLIC can execute the functions that steep_owner creates',
  'ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC', NULL
WHERE NOT EXISTS (
  SELECT FROM pg_catalog.pg_default_acl
  WHERE defaclrole = to_regrole('steep_owner') AND defaclnamespace = 0 AND defaclobjtype = 'f'
    AND NOT EXISTS (SELECT FROM aclexplode(defaclacl) WHERE grantee = 0)
)

-- PostgreSQL 17 has a privilege more on tables.
UNION ALL
SELECT 'Role service_role lacks a privilege on public.events', 'GRANT ALL ON TABLE public.events TO service_role', NULL
FROM pg_catalog.pg_class
WHERE oid = to_regclass('public.events') AND EXISTS (
  SELECT privilege_type FROM aclexplode(acldefault('r', relowner))
  EXCEPT
  SELECT privilege_type FROM aclexplode(relacl) WHERE grantee = to_regrole('service_role')
)
