-- Rules for every object in schema public, present and future.
BEGIN;
SELECT no_plan();

CREATE TEMP VIEW our_tables AS
  SELECT oid, relname, relowner, relrowsecurity, relforcerowsecurity, relacl FROM pg_class
  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f');
CREATE TEMP VIEW our_functions AS
  SELECT oid, oid::regprocedure AS name, proowner, proacl, prosecdef, proconfig FROM pg_proc
  WHERE pronamespace = 'public'::regnamespace;

SELECT ok((SELECT count(*) >= 4 FROM our_tables), 'there are tables to check');
SELECT ok((SELECT count(*) >= 6 FROM our_functions), 'there are functions to check');

SELECT is_empty($$SELECT relname FROM our_tables WHERE relowner <> 'steep_owner'::regrole$$,
  'steep_owner owns every table');
SELECT is_empty($$SELECT name FROM our_functions WHERE proowner <> 'steep_owner'::regrole$$,
  'steep_owner owns every function');
SELECT is_empty('SELECT relname FROM our_tables WHERE NOT (relrowsecurity AND relforcerowsecurity)',
  'row level security is enabled and forced on every table');
SELECT is_empty('SELECT polname FROM pg_policy', 'there is no policy');
SELECT is_empty($$
  SELECT relname, grantee::regrole FROM our_tables, aclexplode(relacl)
  WHERE grantee <> relowner AND (relname, grantee) <> ('events', 'service_role'::regrole)
$$, 'only service_role has privileges on a table, and only on events');
SELECT is_empty('SELECT name FROM our_functions WHERE proacl IS NULL', 'no function has default privileges');
SELECT is_empty($$
  SELECT name FROM our_functions, aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0
$$, 'PUBLIC may execute no function');
SELECT is_empty($$
  SELECT name FROM our_functions
  WHERE NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, public, pg_temp']
$$, 'every function sets search_path, with pg_temp last');
SELECT is_empty($$
  SELECT name FROM our_functions WHERE prosecdef AND NOT coalesce(proconfig, '{}') @> ARRAY['TimeZone=UTC']
$$, 'every SECURITY DEFINER function sets TimeZone');

SELECT is_empty($$SELECT relname FROM our_tables WHERE obj_description(oid, 'pg_class') IS NULL$$,
  'every table has a comment');
SELECT is_empty($$
  SELECT t.relname, a.attname FROM our_tables AS t JOIN pg_attribute AS a ON a.attrelid = t.oid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND col_description(t.oid, a.attnum) IS NULL
$$, 'every column has a comment');
SELECT is_empty($$SELECT name FROM our_functions WHERE obj_description(oid, 'pg_proc') IS NULL$$,
  'every function has a comment');

SELECT * FROM finish();
ROLLBACK;
