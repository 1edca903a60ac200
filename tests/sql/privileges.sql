-- Who may do what: roles x objects x operations. What is, is read from the
-- catalog; what is to be, stands in the table below. An object that the table
-- does not have fails here until somebody has decided about it.
BEGIN;
SELECT no_plan();

-- Empty is nothing. steep_owner owns all of it (schema_public.sql), so that it
-- may do everything and needs no column; public is any other role of the cluster.
CREATE TEMP TABLE decided (
  kind text, object text, steep_ingest text, steep_query text, service_role text, steep_backup text, steep_prune text,
  public text
);
INSERT INTO decided VALUES
  ('database', 'this one', 'CONNECT', 'CONNECT', '', 'CONNECT', 'CONNECT', ''),
  ('schema', 'public', 'USAGE', 'USAGE', 'USAGE', 'USAGE', 'USAGE', ''),

  ('table', 'access_tokens', '', '', '', 'SELECT', '', ''),
  ('table', 'events', '', '', 'DELETE INSERT REFERENCES SELECT TRIGGER TRUNCATE UPDATE', 'SELECT', '', ''),
  ('table', 'hourly_count_deltas', '', '', '', 'SELECT', '', ''),
  ('table', 'hourly_counts', '', '', '', 'SELECT', '', ''),
  ('table', 'monitor_keys', '', '', '', 'SELECT', '', ''),
  ('table', 'schema_migrations', '', '', '', 'SELECT', '', ''),

  ('function', 'bulk_insert_events(jsonb)', 'EXECUTE', '', 'EXECUTE', '', '', ''),
  ('function', 'count_foreign_ids(jsonb)', 'EXECUTE', '', '', '', '', ''),
  ('function', 'find_invalid_events(text[])', 'EXECUTE', '', '', '', '', ''),
  ('function', 'get_hourly_aggregates(integer,text)', '', 'EXECUTE', 'EXECUTE', '', '', ''),
  ('function', 'list_access_tokens()', '', 'EXECUTE', '', '', '', ''),
  ('function', 'list_monitor_keys()', 'EXECUTE', '', '', '', '', ''),
  ('function', 'log_failure(text,text)', 'EXECUTE', 'EXECUTE', '', '', '', ''),
  ('function', 'schema_level()', 'EXECUTE', 'EXECUTE', '', '', '', ''),

  -- Whoever may delete and update events may prune them, and the role of the daily run.
  ('function', 'empty_payloads(interval,integer,timestamp with time zone)', '', '', 'EXECUTE', '', 'EXECUTE', ''),
  ('function', 'prune_events(interval,integer)', '', '', 'EXECUTE', '', 'EXECUTE', ''),

  -- An administrator's.
  ('function', 'check_hourly_counts()', '', '', '', '', '', ''),
  ('function', 'rebuild_hourly_counts()', '', '', '', '', '', ''),

  -- Triggers'.
  ('function', 'assign_monitor_key_slot()', '', '', '', '', '', ''),
  ('function', 'change_hourly_counts(text[],timestamp with time zone[],bigint[])', '', '', '', '', '', ''),
  ('function', 'count_deleted_events()', '', '', '', '', '', ''),
  ('function', 'count_inserted_events()', '', '', '', '', '', ''),
  ('function', 'count_updated_events()', '', '', '', '', '', ''),
  ('function', 'notify_changed()', '', '', '', '', '', ''),
  ('function', 'truncate_hourly_counts()', '', '', '', '', '', ''),

  -- PostgreSQL's own that write, and that it would let everybody call.
  ('function', 'pg_catalog.lo_creat(integer)', '', '', '', '', '', ''),
  ('function', 'pg_catalog.lo_create(oid)', '', '', '', '', '', ''),
  ('function', 'pg_catalog.lo_from_bytea(oid,bytea)', '', '', '', '', '', ''),
  ('function', 'pg_catalog.pg_logical_emit_message(boolean,text,bytea)', '', '', '', '', '', ''),
  ('function', 'pg_catalog.pg_logical_emit_message(boolean,text,text)', '', '', '', '', '', '');

CREATE TEMP VIEW roles AS
  SELECT unnest(ARRAY['steep_ingest', 'steep_query', 'service_role', 'steep_backup', 'steep_prune', 'public']) AS role;

-- The schemas that are not PostgreSQL's own, nor made for these tests.
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
  SELECT 'function', oid, 'pg_catalog.' || oid::regprocedure FROM pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message')
  UNION ALL
  -- A type for its own sake, not the one that comes with each table, or an array's.
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
    ('table', 'DELETE INSERT REFERENCES SELECT TRIGGER TRUNCATE UPDATE'),
    ('sequence', 'SELECT UPDATE USAGE'),
    ('function', 'EXECUTE'),
    ('type', 'USAGE'),
    ('foreign server', 'USAGE')
  ) AS kinds (kind, words);

-- What each role may do in the end, be it by a grant of its own, to PUBLIC, on
-- some columns only, or to a role that it is a member of.
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

-- The cells in which what is differs from what is to be.
CREATE TEMP VIEW differences AS
  SELECT kind, object, role, operations, to_jsonb(decided)->>role AS wanted
  FROM actual JOIN decided USING (kind, object)
  WHERE operations <> to_jsonb(decided)->>role;

SELECT is_empty('SELECT * FROM undecided', 'every object has been decided about');
SELECT is_empty('SELECT kind, object FROM decided EXCEPT SELECT kind, object FROM objects', '... and is still there');
SELECT is(actual.operations, to_jsonb(decided)->>role, format('%s, %s %s: %s', role, kind, object,
  coalesce(nullif(to_jsonb(decided)->>role, ''), 'nothing')))
FROM actual JOIN decided USING (kind, object)
ORDER BY kind, object, role;

-- No role that has no column has been granted anything.
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
$$, 'nobody else has been granted anything');
SELECT is_empty('SELECT parname FROM pg_parameter_acl', 'no role may set a parameter that others may not');
SELECT results_eq($$
  SELECT defaclrole::regrole::text, defaclobjtype::text, (SELECT count(*) FROM aclexplode(defaclacl) WHERE grantee <> defaclrole)
  FROM pg_default_acl
$$, $$VALUES ('steep_owner', 'f', 0::bigint)$$, 'what the owner makes later is nobody else''s, functions neither');

-- That all this would tell. Each is taken back, or goes with the transaction.
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
$$, 'a new object fails until it is decided about');
DROP SCHEMA undecided_schema;

PREPARE told AS SELECT kind, object, role, operations FROM differences;
SELECT is_empty('told', 'before anything is granted there is no difference');
GRANT SELECT (payload) ON public.events TO steep_query;
SELECT results_eq('told', $$VALUES ('table', 'events', 'steep_query', 'SELECT')$$, 'a column granted is a difference');
REVOKE SELECT (payload) ON public.events FROM steep_query;
GRANT TRIGGER ON public.monitor_keys TO PUBLIC;
SELECT set_eq('told', $$SELECT 'table' AS kind, 'monitor_keys' AS object, role,
    CASE role WHEN 'steep_backup' THEN 'SELECT TRIGGER' ELSE 'TRIGGER' END AS operations FROM roles$$, 'a grant to PUBLIC is one for every role');
REVOKE TRIGGER ON public.monitor_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.list_access_tokens() TO steep_ingest;
SELECT results_eq('told', $$VALUES ('function', 'list_access_tokens()', 'steep_ingest', 'EXECUTE')$$, 'a function granted is one');
REVOKE EXECUTE ON FUNCTION public.list_access_tokens() FROM steep_ingest;
REVOKE CONNECT ON DATABASE :"DBNAME" FROM steep_query;
SELECT results_eq('told', $$VALUES ('database', 'this one', 'steep_query', '')$$, 'what is missing is one');
GRANT CONNECT ON DATABASE :"DBNAME" TO steep_query;
GRANT service_role TO steep_ingest;
SELECT set_eq('told', $$VALUES
  ('table', 'events', 'steep_ingest', 'DELETE INSERT REFERENCES SELECT TRIGGER TRUNCATE UPDATE'),
  ('function', 'empty_payloads(interval,integer,timestamp with time zone)', 'steep_ingest', 'EXECUTE'),
  ('function', 'prune_events(interval,integer)', 'steep_ingest', 'EXECUTE'),
  ('function', 'get_hourly_aggregates(integer,text)', 'steep_ingest', 'EXECUTE')
$$, 'a membership is one');

SELECT * FROM finish();
ROLLBACK;
