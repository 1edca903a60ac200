BEGIN;
SELECT no_plan();

SELECT has_function('public', 'list_access_tokens', ARRAY[]::text[]);
SELECT is(pg_get_function_result('public.list_access_tokens'::regproc),
  'TABLE(label text, token_sha256 bytea, expires_at timestamp with time zone)');
SELECT is_definer('public', 'list_access_tokens', ARRAY[]::text[]);
SELECT volatility_is('public', 'list_access_tokens', ARRAY[]::text[], 'stable');

INSERT INTO public.access_tokens (label, token_sha256, expires_at) VALUES
  ('b', sha256('1'), NULL), ('a', sha256('2'), now() - interval '1 day'), ('B', sha256('3'), now() + interval '1 day');
CREATE TEMP TABLE access_tokens (LIKE public.access_tokens);
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT * FROM public.list_access_tokens()', $$VALUES
  ('B', sha256('3'), now() + interval '1 day'), ('a', sha256('2'), now() - interval '1 day'), ('b', sha256('1'), NULL)
$$, 'every token is listed, expired ones too');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
