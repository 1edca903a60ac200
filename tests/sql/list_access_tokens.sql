BEGIN;
SELECT no_plan();

SELECT has_function('public', 'list_access_tokens', ARRAY[]::text[]);
SELECT is(pg_get_function_result('public.list_access_tokens'::regproc),
  'TABLE(label text, token_sha256 bytea, expires_at timestamp with time zone, names text[], prefixes text[])');
SELECT is_definer('public', 'list_access_tokens', ARRAY[]::text[]);
SELECT volatility_is('public', 'list_access_tokens', ARRAY[]::text[], 'stable');

INSERT INTO public.access_tokens (label, token_sha256, expires_at) VALUES
  ('b', sha256('1'), NULL), ('a', sha256('2'), now() - interval '1 day'), ('B', sha256('3'), now() + interval '1 day');
CREATE TEMP TABLE access_tokens (LIKE public.access_tokens);
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT * FROM public.list_access_tokens()', $$VALUES
  ('B', sha256('3'), now() + interval '1 day', NULL::text[], NULL::text[]), ('a', sha256('2'), now() - interval '1 day', NULL, NULL),
  ('b', sha256('1'), NULL, NULL, NULL)
$$, 'every token is listed, expired ones too');
RESET SESSION AUTHORIZATION;

-- The program gives an answer to all who have an equal scope.
UPDATE public.access_tokens SET sources = '{z,lab-*,a,Z,lab,z,a b*,lab-*}' WHERE label = 'a';
UPDATE public.access_tokens SET sources = '{a,z,Z,lab,lab-*,a b*}' WHERE label = 'b';
UPDATE public.access_tokens SET sources = '{lab*}' WHERE label = 'B';
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT label, names, prefixes FROM public.list_access_tokens()', $$VALUES
  ('B', '{}'::text[], '{lab}'::text[]), ('a', '{Z,a,lab,z}', '{a b,lab-}'), ('b', '{Z,a,lab,z}', '{a b,lab-}')
$$, 'a scope is its names and its prefixes, each once and in byte order');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
