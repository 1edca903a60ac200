-- tests/sql/access_tokens.sql has the scopes that may be stored.
BEGIN;
SELECT no_plan();

SELECT volatility_is('public', 'is_scope', ARRAY['text[]'], 'immutable');
SELECT ok(public.is_scope('{a,b*}'), 'names and prefixes are a scope');
SELECT ok(NOT public.is_scope('{}'), 'nothing is not');
SELECT ok(NOT public.is_scope(NULL), '... nor is NULL');

SELECT * FROM finish();
ROLLBACK;
