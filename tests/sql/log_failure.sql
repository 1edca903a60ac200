BEGIN;
SELECT no_plan();

SELECT has_function('public', 'log_failure', ARRAY['text[]', 'text']);
SELECT function_returns('public', 'log_failure', ARRAY['text[]', 'text'], 'void');
SELECT isnt_definer('public', 'log_failure', ARRAY['text[]', 'text']);

SET SESSION AUTHORIZATION steep_query;
SELECT lives_ok($$SELECT public.log_failure('{0a1b,0a1c}', '42501')$$, 'a program can call it; log_test.sh tests what it writes');
SELECT lives_ok($$SELECT public.log_failure(NULL, NULL), public.log_failure('{NULL}', NULL)$$, 'NULLs are accepted');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
