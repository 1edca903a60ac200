-- The roles' attributes and settings, and what is refused to a program that was taken over. The
-- privileges of each role are in privileges.sql.
BEGIN;
SELECT no_plan();

PREPARE attributes AS
  SELECT rolname, rolcanlogin, rolbypassrls, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication
  FROM pg_roles WHERE rolname IN ('steep_owner', 'steep_ingest', 'steep_query', 'steep_backup', 'steep_prune')
  ORDER BY rolname;
SELECT results_eq('attributes', $$VALUES
  ('steep_backup'::name, true, true, false),
  ('steep_ingest', true, false, false),
  ('steep_owner', false, true, false),
  ('steep_prune', true, false, false),
  ('steep_query', true, false, false)
$$, 'the owner cannot log in, and the programs do not bypass RLS');
SELECT ok((SELECT rolbypassrls FROM pg_roles WHERE rolname = 'service_role'), 'service_role bypasses RLS');
SELECT is_empty($$
  SELECT roleid::regrole, member::regrole FROM pg_auth_members
  WHERE member IN ('steep_owner'::regrole, 'steep_ingest'::regrole, 'steep_query'::regrole, 'steep_prune'::regrole)
$$, 'the owner and the programs are members of no role');
SELECT is_member_of('pg_read_all_data', 'steep_backup', 'steep_backup reads everything');
SELECT schema_privs_are('public', 'steep_owner', ARRAY['CREATE', 'USAGE']);

PREPARE settings(text) AS
  SELECT unnest(setconfig) FROM pg_db_role_setting
  WHERE setrole = to_regrole($1) AND setdatabase = 0;
PREPARE common AS VALUES
  ('TimeZone=UTC'), ('DateStyle=ISO, YMD'), ('bytea_output=hex'),
  ('default_transaction_isolation=read committed'), ('synchronous_commit=on'),
  ('statement_timeout=10s'), ('lock_timeout=5s'), ('idle_in_transaction_session_timeout=10s'),
  ('log_statement=none'), ('log_min_duration_statement=-1'), ('log_min_error_statement=panic'),
  ('log_parameter_max_length=0'), ('log_parameter_max_length_on_error=0'),
  ('log_error_verbosity=terse'), ('auto_explain.log_min_duration=-1');
SELECT set_has($$EXECUTE settings('steep_ingest')$$, 'EXECUTE common', 'steep_ingest has its settings');
SELECT set_has($$EXECUTE settings('steep_query')$$, 'EXECUTE common', 'steep_query has its settings');
SELECT set_has($$EXECUTE settings('steep_ingest')$$, $$VALUES ('log_min_messages=log')$$,
  'errors of steep_ingest, whose messages may quote data, are not logged');

-- Statements on every table, new ones too, and statements beyond them. tests/e2e/test_roles.py
-- repeats some in a session of the role's own.
CREATE TEMP TABLE refused AS
SELECT format(statement, relname) AS statement
FROM (VALUES
  ('SELECT FROM public.%I'), ('INSERT INTO public.%I DEFAULT VALUES'), ('DELETE FROM public.%I'), ('TRUNCATE public.%I'),
  ('DO ''BEGIN LOCK TABLE public.%I; END'''), ('DROP TABLE public.%I'), ('ALTER TABLE public.%I DISABLE ROW LEVEL SECURITY')
) AS statements (statement)
CROSS JOIN pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
UNION ALL VALUES
  ('CREATE TABLE public.x (y int)'), ('CREATE TEMP TABLE x (y int)'), ('CREATE SCHEMA x'),
  ('CREATE FUNCTION public.x() RETURNS int LANGUAGE sql RETURN 1'), ('CREATE ROLE x'), ('CREATE EXTENSION file_fdw'),
  ('SET ROLE steep_owner'), ('SET ROLE service_role'), ('SET session_replication_role = replica'),
  ('SET log_statement = ''all'''), ('SET log_parameter_max_length = -1'),
  ('COPY (SELECT 1) TO PROGRAM ''true'''), ('SELECT pg_read_file(''/etc/passwd'')'), ('SELECT pg_catalog.lo_import(''/etc/passwd'')');
GRANT SELECT ON refused TO PUBLIC;
SELECT cmp_ok(count(*), '>=', 5 * 7 + 14::bigint, 'there are tables to check') FROM refused;

CREATE ROLE steep_test_stranger LOGIN;
SET SESSION AUTHORIZATION steep_ingest;
SELECT throws_ok(statement, '42501', NULL, 'steep_ingest is refused ' || statement)
FROM (TABLE refused UNION ALL VALUES ('SET ROLE steep_query')) AS refused (statement);
SET SESSION AUTHORIZATION steep_query;
SELECT throws_ok(statement, '42501', NULL, 'steep_query is refused ' || statement)
FROM (TABLE refused UNION ALL VALUES ('SET ROLE steep_ingest')) AS refused (statement);
SET SESSION AUTHORIZATION steep_test_stranger;
SELECT throws_ok(statement, '42501', NULL, 'any other role is refused ' || statement) FROM refused;

SET SESSION AUTHORIZATION service_role;
SELECT lives_ok($$INSERT INTO public.events VALUES ('evt_1', 'm', now(), 'tool', '{}')$$, 'service_role inserts');
SELECT lives_ok($$UPDATE public.events SET payload = '{"a": 1}' WHERE id = 'evt_1'$$, 'service_role updates');
SELECT results_eq('SELECT id COLLATE "default", payload FROM public.events', $$VALUES ('evt_1', '{"a": 1}'::jsonb)$$,
  'service_role reads, despite RLS, what it wrote');
SELECT lives_ok('DELETE FROM public.events', 'service_role deletes');
SELECT is_empty('SELECT * FROM public.events', '... and the event is gone');
SELECT lives_ok('TRUNCATE public.events', 'service_role truncates');
SELECT lives_ok($$SELECT * FROM public.bulk_insert_events('[]')$$, 'service_role calls bulk_insert_events');
SELECT lives_ok($$SELECT * FROM public.bulk_insert_batches('{}', '{}')$$, 'service_role calls bulk_insert_batches');
SELECT lives_ok('SELECT * FROM public.get_hourly_aggregates()', 'service_role calls get_hourly_aggregates');
SELECT lives_ok('SELECT * FROM public.get_hourly_totals()', 'service_role calls get_hourly_totals');
SELECT lives_ok('SELECT * FROM public.get_source_totals()', 'service_role calls get_source_totals');
RESET SESSION AUTHORIZATION;

-- Objects that the owner creates later.
SET ROLE steep_owner;
CREATE FUNCTION public.made_later() RETURNS integer LANGUAGE sql RETURN 1;
CREATE TABLE public.made_later ();
RESET ROLE;
SELECT function_privs_are('public', 'made_later', ARRAY[]::text[], 'steep_ingest', ARRAY[]::text[]);
SELECT function_privs_are('public', 'made_later', ARRAY[]::text[], 'steep_test_stranger', ARRAY[]::text[]);
SELECT table_privs_are('public', 'made_later', 'steep_ingest', ARRAY[]::text[]);
SELECT table_privs_are('public', 'made_later', 'service_role', ARRAY[]::text[]);

SELECT * FROM finish();
ROLLBACK;
