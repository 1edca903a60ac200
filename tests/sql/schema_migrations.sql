BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'schema_migrations', ARRAY['name', 'sha256', 'applied_at']);
SELECT col_is_pk('public', 'schema_migrations', 'name', 'name is the primary key');
SELECT set_has('SELECT name FROM public.schema_migrations', $$VALUES
  ('20260203_create_events_table.sql'), ('20260205_create_credentials.sql')
$$, 'applied migrations are recorded');
SELECT is_empty($$SELECT name FROM public.schema_migrations WHERE sha256 !~ '^[0-9a-f]{64}$'$$,
  '... with their SHA-256');

SELECT * FROM finish();
ROLLBACK;
