BEGIN;
SELECT no_plan();

SELECT has_function('public', 'list_access_tokens', ARRAY['uuid']);
SELECT is(pg_get_function_result('public.list_access_tokens'::regproc),
  'TABLE(mark uuid, label text, token_sha256 bytea, expires_at timestamp with time zone, names text[], prefixes text[])');
SELECT is_definer('public', 'list_access_tokens', ARRAY['uuid']);
SELECT volatility_is('public', 'list_access_tokens', ARRAY['uuid'], 'stable');

INSERT INTO public.access_tokens (label, token_sha256, expires_at) VALUES
  ('b', sha256('1'), NULL), ('a', sha256('2'), now() - interval '1 day'), ('B', sha256('3'), now() + interval '1 day');
CREATE TEMP TABLE access_tokens (LIKE public.access_tokens);
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT label, token_sha256, expires_at, names, prefixes FROM public.list_access_tokens() OFFSET 1', $$VALUES
  ('B', sha256('3'), now() + interval '1 day', NULL::text[], NULL::text[]), ('a', sha256('2'), now() - interval '1 day', NULL, NULL),
  ('b', sha256('1'), NULL, NULL, NULL)
$$, 'every token is listed, expired ones too');
SELECT results_eq('SELECT mark IS NULL, label, token_sha256, expires_at, names, prefixes FROM public.list_access_tokens() LIMIT 1', $$VALUES
  (false, NULL::text, NULL::bytea, NULL::timestamptz, NULL::text[], NULL::text[])
$$, '... after a row with a mark alone');
SELECT mark AS seen FROM public.list_access_tokens() LIMIT 1 \gset
SELECT is(count(*), 1::bigint, 'if nothing changed since a mark, only a mark is returned') FROM public.list_access_tokens(:'seen');
RESET SESSION AUTHORIZATION;

-- The program gives an answer to all who have an equal scope.
UPDATE public.access_tokens SET sources = '{z,lab-*,a,Z,lab,z,a b*,lab-*}' WHERE label = 'a';
UPDATE public.access_tokens SET sources = '{a,z,Z,lab,lab-*,a b*}' WHERE label = 'b';
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq(format('SELECT label, names, prefixes FROM public.list_access_tokens(%L) OFFSET 1', :'seen'), $$VALUES
  ('a', '{Z,a,lab,z}'::text[], '{a b,lab-}'::text[]), ('b', '{Z,a,lab,z}', '{a b,lab-}')
$$, 'of tokens whose scope changed, the scope is listed, and no other token');
SELECT mark AS newer FROM public.list_access_tokens() LIMIT 1 \gset
RESET SESSION AUTHORIZATION;
UPDATE public.access_tokens SET sources = '{lab*}' WHERE label = 'B';
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT label, names, prefixes FROM public.list_access_tokens() OFFSET 1', $$VALUES
  ('B', '{}'::text[], '{lab}'::text[]), ('a', '{Z,a,lab,z}', '{a b,lab-}'), ('b', '{Z,a,lab,z}', '{a b,lab-}')
$$, 'a scope is its names and its prefixes, each once and in byte order');
RESET SESSION AUTHORIZATION;

UPDATE public.access_tokens SET label = 'c', expires_at = 'epoch' WHERE label = 'B';
DELETE FROM public.access_tokens WHERE label = 'a';
SELECT results_eq(format('SELECT label, token_sha256, expires_at, names, prefixes FROM public.list_access_tokens(%L) OFFSET 1', :'newer'), $$VALUES
  ('B', NULL::bytea, NULL::timestamptz, NULL::text[], NULL::text[]), ('a', NULL, NULL, NULL, NULL), ('c', sha256('3'), 'epoch', '{}', '{lab}')
$$, 'what was removed, or has another label, is listed without a digest');
SELECT is_empty('SELECT FROM public.list_access_tokens(gen_random_uuid())', 'an unknown mark has no answer');
TRUNCATE public.access_tokens;
SELECT is_empty(format('SELECT FROM public.list_access_tokens(%L)', :'newer'), 'after a TRUNCATE, an older mark has no answer');

SELECT * FROM finish();
ROLLBACK;
