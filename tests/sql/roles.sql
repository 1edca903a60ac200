BEGIN;
SELECT no_plan();

PREPARE attributes AS
  SELECT rolname, rolcanlogin, rolbypassrls, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication
  FROM pg_roles WHERE rolname LIKE 'steep\_%' AND rolname IN ('steep_owner', 'steep_ingest', 'steep_query', 'steep_backup', 'steep_prune')
  ORDER BY rolname;
SELECT results_eq('attributes', $$VALUES
  ('steep_backup'::name, true, true, false),
  ('steep_ingest', true, false, false),
  ('steep_owner', false, true, false),
  ('steep_prune', true, false, false),
  ('steep_query', true, false, false)
$$, 'the programs log in and bypass nothing, the owner bypasses RLS and cannot log in');
SELECT ok((SELECT rolbypassrls FROM pg_roles WHERE rolname = 'service_role'), 'service_role bypasses RLS');
SELECT is_empty($$
  SELECT roleid::regrole, member::regrole FROM pg_auth_members
  WHERE member IN ('steep_owner'::regrole, 'steep_ingest'::regrole, 'steep_query'::regrole, 'steep_prune'::regrole)
$$, 'our roles are members of no other');
SELECT is_member_of('pg_read_all_data', 'steep_backup', 'the role for dumps reads everything');

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
  'an error of steep_ingest, whose text may quote, is not logged');

-- The database and the schema.
SELECT database_privs_are(current_database(), 'steep_ingest', ARRAY['CONNECT']);
SELECT database_privs_are(current_database(), 'steep_query', ARRAY['CONNECT']);
SELECT schema_privs_are('public', 'steep_owner', ARRAY['CREATE', 'USAGE']);
SELECT schema_privs_are('public', 'steep_ingest', ARRAY['USAGE']);
SELECT schema_privs_are('public', 'steep_query', ARRAY['USAGE']);
SELECT schema_privs_are('public', 'service_role', ARRAY['USAGE']);

CREATE ROLE steep_test_stranger LOGIN;
SELECT database_privs_are(current_database(), 'steep_test_stranger', ARRAY[]::text[]);
SELECT schema_privs_are('public', 'steep_test_stranger', ARRAY[]::text[]);

SET ROLE steep_test_stranger;
SELECT throws_ok('SELECT * FROM public.events', '42501', NULL, 'a stranger reads no events');
SELECT throws_ok($$SELECT * FROM public.bulk_insert_events('[]')$$, '42501', NULL, 'a stranger inserts none');
SELECT throws_ok('SELECT * FROM public.get_hourly_aggregates()', '42501', NULL, 'a stranger reads no aggregates');
SELECT throws_ok('SELECT * FROM public.list_monitor_keys()', '42501', NULL, 'a stranger lists no keys');
SELECT throws_ok('SELECT * FROM public.list_access_tokens()', '42501', NULL, 'a stranger lists no tokens');
SELECT throws_ok('CREATE TABLE public.mine ()', '42501', NULL, 'a stranger creates no table');
SELECT throws_ok('CREATE TEMP TABLE mine ()', '42501', NULL, 'a stranger creates no temporary table');
RESET ROLE;

SET SESSION AUTHORIZATION steep_ingest;
SELECT throws_ok('SELECT * FROM public.events', '42501', NULL, 'steep_ingest reads no events');
SELECT throws_ok('INSERT INTO public.events DEFAULT VALUES', '42501', NULL, 'steep_ingest inserts none but by its function');
SELECT throws_ok('DELETE FROM public.events', '42501', NULL, 'steep_ingest deletes no events');
SELECT throws_ok('SELECT * FROM public.monitor_keys', '42501', NULL, 'steep_ingest reads no keys but by its function');
SELECT throws_ok($$INSERT INTO public.monitor_keys VALUES ('m', '\x00')$$, '42501', NULL, 'steep_ingest registers no keys');
SELECT throws_ok('SELECT * FROM public.access_tokens', '42501', NULL, 'steep_ingest reads no tokens');
SELECT throws_ok('SELECT * FROM public.schema_migrations', '42501', NULL, 'steep_ingest reads no migrations');
SELECT throws_ok('SELECT * FROM public.get_hourly_aggregates()', '42501', NULL, 'steep_ingest reads no aggregates');
SELECT throws_ok('SELECT * FROM public.list_access_tokens()', '42501', NULL, 'steep_ingest lists no tokens');
SELECT throws_ok('CREATE TABLE public.mine ()', '42501', NULL, 'steep_ingest creates no table');
SELECT throws_ok('CREATE TEMP TABLE mine ()', '42501', NULL, 'steep_ingest creates no temporary table');
SELECT throws_ok('CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql RETURN 1', '42501', NULL, 'steep_ingest creates no function');
SELECT throws_ok('CREATE SCHEMA mine', '42501', NULL, 'steep_ingest creates no schema');
SELECT throws_ok('SET ROLE steep_owner', '42501', NULL, 'steep_ingest does not become the owner');
RESET SESSION AUTHORIZATION;

SET SESSION AUTHORIZATION steep_query;
SELECT throws_ok('SELECT * FROM public.events', '42501', NULL, 'steep_query reads no events');
SELECT throws_ok('SELECT * FROM public.monitor_keys', '42501', NULL, 'steep_query reads no keys');
SELECT throws_ok('SELECT * FROM public.access_tokens', '42501', NULL, 'steep_query reads no tokens but by its function');
SELECT throws_ok('SELECT * FROM public.schema_migrations', '42501', NULL, 'steep_query reads no migrations');
SELECT throws_ok($$SELECT * FROM public.bulk_insert_events('[]')$$, '42501', NULL, 'steep_query inserts no events');
SELECT throws_ok($$SELECT * FROM public.find_invalid_events('{}')$$, '42501', NULL, 'steep_query tries no events');
SELECT throws_ok($$SELECT public.count_foreign_ids('[]')$$, '42501', NULL, 'steep_query asks after no ids');
SELECT throws_ok('SELECT * FROM public.list_monitor_keys()', '42501', NULL, 'steep_query lists no keys');
SELECT throws_ok('CREATE TABLE public.mine ()', '42501', NULL, 'steep_query creates no table');
SELECT throws_ok('CREATE TEMP TABLE mine ()', '42501', NULL, 'steep_query creates no temporary table');
SELECT throws_ok('SET ROLE steep_ingest', '42501', NULL, 'steep_query does not become steep_ingest');
RESET SESSION AUTHORIZATION;

SET SESSION AUTHORIZATION service_role;
SELECT lives_ok($$INSERT INTO public.events VALUES ('evt_1', 'm', now(), 'tool', '{}')$$, 'service_role inserts');
SELECT lives_ok($$UPDATE public.events SET payload = '{"a": 1}' WHERE id = 'evt_1'$$, 'service_role updates');
SELECT results_eq('SELECT id COLLATE "default", payload FROM public.events', $$VALUES ('evt_1', '{"a": 1}'::jsonb)$$,
  'service_role reads, behind RLS, what it wrote');
SELECT lives_ok('DELETE FROM public.events', 'service_role deletes');
SELECT is_empty('SELECT * FROM public.events', '... for good');
SELECT lives_ok('TRUNCATE public.events', 'service_role truncates');
SELECT lives_ok($$SELECT * FROM public.bulk_insert_events('[]')$$, 'service_role calls bulk_insert_events');
SELECT lives_ok('SELECT * FROM public.get_hourly_aggregates()', 'service_role calls get_hourly_aggregates');
SELECT throws_ok('SELECT * FROM public.monitor_keys', '42501', NULL, 'service_role reads no keys');
SELECT throws_ok('SELECT * FROM public.access_tokens', '42501', NULL, 'service_role reads no tokens');
SELECT throws_ok('SELECT * FROM public.list_access_tokens()', '42501', NULL, 'service_role lists no tokens');
SELECT throws_ok('CREATE TABLE public.mine ()', '42501', NULL, 'service_role creates no table');
RESET SESSION AUTHORIZATION;

-- What the owner makes later.
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
