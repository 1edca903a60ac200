BEGIN;
SELECT no_plan();

SELECT has_function('public', 'list_monitor_keys', ARRAY[]::text[]);
SELECT is(pg_get_function_result('public.list_monitor_keys'::regproc),
  'TABLE(source text, public_key bytea)');
SELECT is_definer('public', 'list_monitor_keys', ARRAY[]::text[]);
SELECT volatility_is('public', 'list_monitor_keys', ARRAY[]::text[], 'stable');

INSERT INTO public.monitor_keys (source, public_key) VALUES
  ('b', sha256('1')), ('a', sha256('2')), ('a', sha256('1')), ('B', sha256('1'));
CREATE TEMP TABLE monitor_keys (LIKE public.monitor_keys);
SET SESSION AUTHORIZATION steep_ingest;
SELECT results_eq('SELECT * FROM public.list_monitor_keys()', $$VALUES
  ('B', sha256('1')), ('a', sha256('2')), ('a', sha256('1')), ('b', sha256('1'))
$$, 'every key is listed, by source in byte order');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
