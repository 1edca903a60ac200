-- Who may do what: roles x objects x operations. The table below states the privileges
-- wanted; the actual ones come from the catalog. A new object fails here until it has a row.
BEGIN;
SELECT no_plan();

-- MAINTAIN is new in PostgreSQL 17.
SELECT CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN 'MAINTAIN ' ELSE '' END AS maintain \gset

-- An empty cell means no privilege. steep_owner has no column: it owns every object
-- (schema_public.sql). public is any other role of the cluster.
CREATE TEMP TABLE decided (
  kind text, object text, steep_ingest text, steep_query text, service_role text, steep_backup text, steep_prune text,
  public text
);
INSERT INTO decided VALUES
  ('database', 'this one', 'CONNECT', 'CONNECT', '', 'CONNECT', 'CONNECT', ''),
  ('schema', 'public', 'USAGE', 'USAGE', 'USAGE', 'USAGE', 'USAGE', ''),

  ('table', 'access_tokens', '', '', '', 'SELECT', '', ''),
  ('table', 'credential_changes', '', '', '', 'SELECT', '', ''),
  ('table', 'events', '', '', 'DELETE INSERT ' || :'maintain' || 'REFERENCES SELECT TRIGGER TRUNCATE UPDATE', 'SELECT', '', ''),
  ('table', 'heartbeat', '', '', '', 'SELECT', '', ''),
  ('table', 'hourly_counts', '', '', '', 'SELECT', '', ''),
  ('table', 'monitor_keys', '', '', '', 'SELECT', '', ''),
  ('table', 'schema_migrations', '', '', '', 'SELECT', '', ''),
  ('table', 'source_renames', '', '', '', 'SELECT', '', ''),

  ('sequence', 'credential_changes_version_seq', '', '', '', 'SELECT', '', ''),

  ('function', 'beat()', 'EXECUTE', '', '', '', '', ''),
  ('function', 'bulk_insert_batches(integer[],jsonb[])', 'EXECUTE', '', 'EXECUTE', '', '', ''),
  ('function', 'bulk_insert_events(jsonb)', 'EXECUTE', '', 'EXECUTE', '', '', ''),
  ('function', 'count_foreign_ids(jsonb)', 'EXECUTE', '', '', '', '', ''),
  ('function', 'data_time()', 'EXECUTE', 'EXECUTE', '', '', '', ''),
  ('function', 'find_invalid_events(text[])', 'EXECUTE', '', '', '', '', ''),
  ('function', 'get_hourly_aggregates(integer,text)', '', 'EXECUTE', 'EXECUTE', '', '', ''),
  ('function', 'get_hourly_totals(integer,text,text[],text[])', '', 'EXECUTE', 'EXECUTE', '', '', ''),
  ('function', 'get_scoped_aggregates(integer,text,text[],text[])', '', 'EXECUTE', 'EXECUTE', '', '', ''),
  ('function', 'get_source_totals(integer,text,text[],text[])', '', 'EXECUTE', 'EXECUTE', '', '', ''),
  ('function', 'list_access_tokens(uuid)', '', 'EXECUTE', '', '', '', ''),
  ('function', 'list_monitor_keys(uuid)', 'EXECUTE', '', '', '', '', ''),
  ('function', 'log_failure(text[],text)', 'EXECUTE', 'EXECUTE', '', '', '', ''),
  ('function', 'schema_level()', 'EXECUTE', 'EXECUTE', '', '', '', ''),

  -- For service_role, which may delete and update events anyway, and for the daily run.
  ('function', 'count_old_events(interval)', '', '', 'EXECUTE', '', 'EXECUTE', ''),
  ('function', 'empty_payloads(interval,integer,timestamp with time zone)', '', '', 'EXECUTE', '', 'EXECUTE', ''),
  ('function', 'prune_events(interval,integer)', '', '', 'EXECUTE', '', 'EXECUTE', ''),

  -- For administrators only.
  ('function', 'begin_erase(text)', '', '', '', '', '', ''),
  ('function', 'begin_rename(text,text,boolean)', '', '', '', '', '', ''),
  ('function', 'count_source(text)', '', '', '', '', '', ''),
  ('function', 'move_events(text,text,integer)', '', '', '', '', '', ''),
  ('function', 'remove_events(text,timestamp with time zone,timestamp with time zone,integer)', '', '', '', '', '', ''),
  ('function', 'check_hourly_counts(timestamp with time zone,timestamp with time zone)', '', '', '', '', '', ''),
  ('function', 'rebuild_hourly_counts()', '', '', '', '', '', ''),

  -- For the functions above only.
  ('function', 'find_source_events(text,timestamp with time zone,timestamp with time zone,integer)', '', '', '', '', '', ''),
  ('function', 'find_credential_changes(text,uuid)', '', '', '', '', '', ''),
  ('function', 'count_partial_hour(timestamp with time zone,text[])', '', '', '', '', '', ''),
  ('function', 'find_sources(text,text[],text[])', '', '', '', '', '', ''),
  ('function', 'has_source(text[],text)', '', '', '', '', '', ''),
  ('function', 'is_scope(text[])', '', '', '', '', '', ''),

  -- For triggers only.
  ('function', 'assign_monitor_key_slot()', '', '', '', '', '', ''),
  ('function', 'change_hourly_counts(text[],timestamp with time zone[],bigint[])', '', '', '', '', '', ''),
  ('function', 'count_deleted_events()', '', '', '', '', '', ''),
  ('function', 'count_inserted_events()', '', '', '', '', '', ''),
  ('function', 'count_updated_events()', '', '', '', '', '', ''),
  ('function', 'notify_changed()', '', '', '', '', '', ''),
  ('function', 'record_credential_change()', '', '', '', '', '', ''),
  ('function', 'serialize_credential_changes()', '', '', '', '', '', ''),
  ('function', 'truncate_hourly_counts()', '', '', '', '', '', '');

-- Functions of PostgreSQL that write, and that every role may call by default. Their
-- arguments differ between versions.
CREATE TEMP VIEW writers AS
  SELECT oid, proname, 'pg_catalog.' || oid::regprocedure AS object FROM pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message');
SELECT is(count(DISTINCT proname), 4::bigint, 'PostgreSQL has the functions that write') FROM writers;
INSERT INTO decided SELECT 'function', object, '', '', '', '', '', '' FROM writers;

CREATE TEMP VIEW roles AS
  SELECT unnest(ARRAY['steep_ingest', 'steep_query', 'service_role', 'steep_backup', 'steep_prune', 'public']) AS role;

-- Schemas that are neither PostgreSQL's nor the tests'.
CREATE TEMP VIEW our_schemas AS
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'tap');

CREATE TEMP VIEW objects AS
  SELECT 'database' AS kind, oid, 'this one' AS object FROM pg_database WHERE datname = current_database()
  UNION ALL
  SELECT 'schema', oid, oid::regnamespace::text FROM our_schemas
  UNION ALL
  SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, oid, oid::regclass::text FROM pg_class
  WHERE relnamespace IN (SELECT oid FROM our_schemas) AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL
  SELECT 'function', oid, oid::regprocedure::text FROM pg_proc
  WHERE pronamespace IN (SELECT oid FROM our_schemas)
  UNION ALL
  SELECT 'function', oid, object FROM writers
  UNION ALL
  -- Without the types that come with each table, and array types.
  SELECT 'type', oid, oid::regtype::text FROM pg_type
  WHERE typnamespace IN (SELECT oid FROM our_schemas) AND typtype <> 'b'
    AND (typrelid = 0 OR (SELECT relkind FROM pg_class WHERE oid = typrelid) = 'c')
  UNION ALL
  SELECT 'foreign server', oid, srvname::text COLLATE "default" FROM pg_foreign_server
  UNION ALL
  SELECT 'large object', oid, oid::text FROM pg_largeobject_metadata;

CREATE TEMP VIEW operations AS
  SELECT kind, unnest(string_to_array(words, ' ')) AS operation
  FROM (VALUES
    ('database', 'CONNECT CREATE TEMPORARY'),
    ('schema', 'CREATE USAGE'),
    ('table', 'DELETE INSERT ' || :'maintain' || 'REFERENCES SELECT TRIGGER TRUNCATE UPDATE'),
    ('sequence', 'SELECT UPDATE USAGE'),
    ('function', 'EXECUTE'),
    ('type', 'USAGE'),
    ('foreign server', 'USAGE')
  ) AS kinds (kind, words);

-- The effective privileges: granted to the role, to PUBLIC, on single columns, or to a role
-- that it is a member of.
CREATE TEMP VIEW allowed AS
  SELECT kind, object, role, operation
  FROM objects JOIN operations USING (kind) CROSS JOIN roles
  WHERE CASE kind
    WHEN 'database' THEN has_database_privilege(role, oid, operation)
    WHEN 'schema' THEN has_schema_privilege(role, oid, operation)
    WHEN 'table' THEN has_table_privilege(role, oid, operation)
      OR operation IN ('INSERT', 'REFERENCES', 'SELECT', 'UPDATE') AND has_any_column_privilege(role, oid, operation)
    WHEN 'sequence' THEN has_sequence_privilege(role, oid, operation)
    WHEN 'function' THEN has_function_privilege(role, oid, operation)
    WHEN 'type' THEN has_type_privilege(role, oid, operation)
    WHEN 'foreign server' THEN has_server_privilege(role, oid, operation)
  END;

CREATE TEMP VIEW actual AS
  SELECT kind, object, role, coalesce(string_agg(operation, ' ' ORDER BY operation), '') AS operations
  FROM objects CROSS JOIN roles LEFT JOIN allowed USING (kind, object, role)
  GROUP BY kind, object, role;

CREATE TEMP VIEW undecided AS
  SELECT kind, object FROM objects EXCEPT SELECT kind, object FROM decided;

-- The cells whose actual privileges differ from those wanted.
CREATE TEMP VIEW differences AS
  SELECT kind, object, role, operations, to_jsonb(decided)->>role AS wanted
  FROM actual JOIN decided USING (kind, object)
  WHERE operations <> to_jsonb(decided)->>role;

SELECT is_empty('SELECT * FROM undecided', 'every object has a row');
SELECT is_empty('SELECT kind, object FROM decided EXCEPT SELECT kind, object FROM objects', '... and every row an object');
SELECT is(actual.operations, to_jsonb(decided)->>role, format('%s, %s %s: %s', role, kind, object,
  coalesce(nullif(to_jsonb(decided)->>role, ''), 'nothing')))
FROM actual JOIN decided USING (kind, object)
ORDER BY kind, object, role;

-- Roles without a column have no grants.
SELECT is_empty($$
  SELECT object, grantee::regrole
  FROM (
    SELECT oid::regclass::text, relacl, relowner FROM pg_class WHERE relnamespace IN (SELECT oid FROM our_schemas)
    UNION ALL
    SELECT attrelid::regclass || '.' || attname, attacl, relowner FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace IN (SELECT oid FROM our_schemas)
    UNION ALL
    SELECT oid::regprocedure::text, proacl, proowner FROM pg_proc WHERE pronamespace IN (SELECT oid FROM our_schemas)
    UNION ALL
    SELECT 'database', datacl, datdba FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT nspname, nspacl, nspowner FROM pg_namespace WHERE nspname IN (SELECT nspname FROM our_schemas)
  ) AS acls (object, acl, owner), aclexplode(acl)
  WHERE grantee NOT IN (0, owner, 'steep_owner'::regrole, 'steep_ingest'::regrole, 'steep_query'::regrole, 'service_role'::regrole, 'steep_backup'::regrole,
    'steep_prune'::regrole)
$$, 'no other role has a grant');
SELECT is_empty('SELECT parname FROM pg_parameter_acl', 'no role may set a privileged parameter');
SELECT results_eq($$
  SELECT defaclrole::regrole::text, defaclobjtype::text, (SELECT count(*) FROM aclexplode(defaclacl) WHERE grantee <> defaclrole)
  FROM pg_default_acl
$$, $$VALUES ('steep_owner', 'f', 0::bigint)$$, 'nothing is granted on objects that the owner creates later, functions included');

-- The checks above find what they are made for. Each change is undone, or rolled back at the end.
SET ROLE steep_owner;
CREATE TABLE public.undecided_table (n serial);
CREATE VIEW public.undecided_view AS SELECT 1;
CREATE FUNCTION public.undecided_function() RETURNS integer LANGUAGE sql RETURN 1;
CREATE PROCEDURE public.undecided_procedure() LANGUAGE sql BEGIN ATOMIC END;
CREATE TYPE public.undecided_type AS ENUM ('one');
RESET ROLE;
CREATE SCHEMA undecided_schema;
SELECT set_eq('SELECT kind, object FROM undecided', $$VALUES
  ('table', 'undecided_table'), ('sequence', 'undecided_table_n_seq'), ('table', 'undecided_view'),
  ('function', 'undecided_function()'), ('function', 'undecided_procedure()'), ('type', 'undecided_type'),
  ('schema', 'undecided_schema')
$$, 'a new object without a row is found');
DROP SCHEMA undecided_schema;

PREPARE found AS SELECT kind, object, role, operations FROM differences;
SELECT is_empty('found', 'before any change there is no difference');
GRANT SELECT (payload) ON public.events TO steep_query;
SELECT results_eq('found', $$VALUES ('table', 'events', 'steep_query', 'SELECT')$$, 'a grant on a column is found');
REVOKE SELECT (payload) ON public.events FROM steep_query;
GRANT TRIGGER ON public.monitor_keys TO PUBLIC;
SELECT set_eq('found', $$SELECT 'table' AS kind, 'monitor_keys' AS object, role,
    CASE role WHEN 'steep_backup' THEN 'SELECT TRIGGER' ELSE 'TRIGGER' END AS operations FROM roles$$, 'a grant to PUBLIC is found for every role');
REVOKE TRIGGER ON public.monitor_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.list_access_tokens(uuid) TO steep_ingest;
SELECT results_eq('found', $$VALUES ('function', 'list_access_tokens(uuid)', 'steep_ingest', 'EXECUTE')$$, 'a grant on a function is found');
REVOKE EXECUTE ON FUNCTION public.list_access_tokens(uuid) FROM steep_ingest;
REVOKE CONNECT ON DATABASE :"DBNAME" FROM steep_query;
SELECT results_eq('found', $$VALUES ('database', 'this one', 'steep_query', '')$$, 'a missing grant is found');
GRANT CONNECT ON DATABASE :"DBNAME" TO steep_query;
GRANT service_role TO steep_ingest;
SELECT set_eq('found', $$VALUES
  ('table', 'events', 'steep_ingest', (SELECT service_role FROM decided WHERE object = 'events')),
  ('function', 'count_old_events(interval)', 'steep_ingest', 'EXECUTE'),
  ('function', 'empty_payloads(interval,integer,timestamp with time zone)', 'steep_ingest', 'EXECUTE'),
  ('function', 'prune_events(interval,integer)', 'steep_ingest', 'EXECUTE'),
  ('function', 'get_hourly_aggregates(integer,text)', 'steep_ingest', 'EXECUTE'),
  ('function', 'get_hourly_totals(integer,text,text[],text[])', 'steep_ingest', 'EXECUTE'),
  ('function', 'get_scoped_aggregates(integer,text,text[],text[])', 'steep_ingest', 'EXECUTE'),
  ('function', 'get_source_totals(integer,text,text[],text[])', 'steep_ingest', 'EXECUTE')
$$, 'a membership is found');

SELECT * FROM finish();
ROLLBACK;
