BEGIN;
SELECT no_plan();

SELECT has_function('public', 'list_monitor_keys', ARRAY['uuid']);
SELECT is(pg_get_function_result('public.list_monitor_keys'::regproc),
  'TABLE(mark uuid, source text, public_key bytea)');
SELECT is_definer('public', 'list_monitor_keys', ARRAY['uuid']);
SELECT volatility_is('public', 'list_monitor_keys', ARRAY['uuid'], 'stable');

INSERT INTO public.monitor_keys (source, public_key) VALUES
  ('b', sha256('1')), ('a', sha256('2')), ('a', sha256('1')), ('B', sha256('1'));
CREATE TEMP TABLE monitor_keys (LIKE public.monitor_keys);
SET SESSION AUTHORIZATION steep_ingest;
SELECT results_eq('SELECT source, public_key FROM public.list_monitor_keys() OFFSET 1', $$VALUES
  ('B', sha256('1')), ('a', sha256('2')), ('a', sha256('1')), ('b', sha256('1'))
$$, 'every key is listed, by source in byte order');
SELECT results_eq('SELECT mark IS NULL, source, public_key FROM public.list_monitor_keys() LIMIT 1', $$VALUES (false, NULL::text, NULL::bytea)$$,
  '... after a row with a mark alone');

-- What a program does.
SELECT mark AS seen FROM public.list_monitor_keys() LIMIT 1 \gset
SELECT results_eq(format('SELECT * FROM public.list_monitor_keys(%L)', :'seen'), format('VALUES (%L::uuid, NULL::text, NULL::bytea)', :'seen'),
  'if nothing changed since a mark, only the mark is returned');
RESET SESSION AUTHORIZATION;

DELETE FROM public.monitor_keys WHERE source IN ('B', 'b');
INSERT INTO public.monitor_keys (source, public_key) VALUES ('c', sha256('1')), ('b', sha256('3'));
UPDATE public.monitor_keys SET source = 'd' WHERE source = 'c';
SET SESSION AUTHORIZATION steep_ingest;
SELECT results_eq(format('SELECT source, public_key FROM public.list_monitor_keys(%L) OFFSET 1', :'seen'), $$VALUES
  ('B', NULL::bytea), ('b', sha256('3')), ('c', NULL), ('d', sha256('1'))
$$, 'after changes, the sources that changed are listed with what they have now, and no other');
SELECT isnt(mark, :'seen', '... and the mark is another') FROM public.list_monitor_keys(:'seen') LIMIT 1;
SELECT mark AS newer FROM public.list_monitor_keys(:'seen') LIMIT 1 \gset
SELECT results_eq(format('SELECT * FROM public.list_monitor_keys(%L)', :'newer'), format('VALUES (%L::uuid, NULL::text, NULL::bytea)', :'newer'),
  '... since which nothing changed');
SELECT is_empty('SELECT FROM public.list_monitor_keys(gen_random_uuid())', 'an unknown mark has no answer');
RESET SESSION AUTHORIZATION;

-- All keys of a source, of which one changed.
INSERT INTO public.monitor_keys (source, public_key) VALUES ('a', sha256('9'));
SELECT results_eq(format('SELECT source, public_key FROM public.list_monitor_keys(%L) OFFSET 1', :'newer'),
  $$VALUES ('a', sha256('2')), ('a', sha256('1')), ('a', sha256('9'))$$, 'a source that changed is listed with all of its keys');
INSERT INTO public.access_tokens (label, token_sha256) VALUES ('a', sha256('a'));
SELECT is(count(*), 4::bigint, '... and tokens change nothing') FROM public.list_monitor_keys(:'newer');
SELECT mark AS tokens FROM public.list_access_tokens() LIMIT 1 \gset
SELECT is_empty(format('SELECT FROM public.list_monitor_keys(%L)', :'tokens'), 'a mark of the tokens is unknown');
TRUNCATE public.monitor_keys;
SELECT is_empty(format('SELECT FROM public.list_monitor_keys(%L)', :'newer'), 'after a TRUNCATE, an older mark has no answer');
SELECT results_eq('SELECT source, public_key FROM public.list_monitor_keys()', 'VALUES (NULL::text, NULL::bytea)', '... and no key is listed');

SELECT * FROM finish();
ROLLBACK;
