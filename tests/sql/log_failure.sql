BEGIN;
SELECT no_plan();

SELECT has_function('public', 'log_failure', ARRAY['text', 'text']);
SELECT function_returns('public', 'log_failure', ARRAY['text', 'text'], 'void');
SELECT isnt_definer('public', 'log_failure', ARRAY['text', 'text']);
SELECT function_owner_is('public', 'log_failure', ARRAY['text', 'text'], 'steep_owner'::name);
SELECT function_privs_are('public', 'log_failure', ARRAY['text', 'text'], 'steep_ingest', ARRAY['EXECUTE']);
SELECT function_privs_are('public', 'log_failure', ARRAY['text', 'text'], 'steep_query', ARRAY['EXECUTE']);
SELECT function_privs_are('public', 'log_failure', ARRAY['text', 'text'], 'service_role', ARRAY[]::text[]);

SET SESSION AUTHORIZATION steep_query;
SELECT lives_ok($$SELECT public.log_failure('0a1b', '42501')$$, 'what it writes: see log_test.sh');
SELECT lives_ok($$SELECT public.log_failure(NULL, NULL)$$, 'NULLs are no error');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
