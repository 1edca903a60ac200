BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'access_tokens', ARRAY['label', 'token_sha256', 'created_at', 'expires_at', 'sources']);
SELECT col_type_is('public', 'access_tokens', 'label', 'text', 'label is text');
SELECT col_type_is('public', 'access_tokens', 'token_sha256', 'bytea', 'token_sha256 is bytea');
SELECT col_type_is('public', 'access_tokens', 'created_at', 'timestamp with time zone', 'created_at is timestamptz');
SELECT col_type_is('public', 'access_tokens', 'expires_at', 'timestamp with time zone', 'expires_at is timestamptz');
SELECT col_type_is('public', 'access_tokens', 'sources', 'text[]', 'sources is text[]');
SELECT col_default_is('public', 'access_tokens', 'created_at', 'now()', 'created_at is now() by default');
SELECT col_not_null('public', 'access_tokens', name, name || ' is never null')
FROM unnest(ARRAY['label', 'token_sha256', 'created_at']) AS name;
SELECT col_is_null('public', 'access_tokens', 'expires_at', 'expires_at may be null');
SELECT col_is_null('public', 'access_tokens', 'sources', 'sources may be null');
SELECT col_hasnt_default('public', 'access_tokens', 'sources', '... and is, by default');
SELECT col_is_pk('public', 'access_tokens', 'label', 'label is the primary key');
SELECT col_is_unique('public', 'access_tokens', 'token_sha256', 'token_sha256 is unique');

PREPARE add_token(text, bytea) AS INSERT INTO public.access_tokens (label, token_sha256) VALUES ($1, $2);
SELECT lives_ok(format('EXECUTE add_token(%L, sha256(%L))', name, name), 'a label may be ' || to_json(name))
FROM (VALUES ('a'), ('Dash.board_1-x'), ('-'), (repeat('x', 64))) AS names (name);
SELECT throws_ok(format('EXECUTE add_token(%L, sha256(%L))', name, 'x'), '23514', NULL, 'a label may not be ' || to_json(name))
FROM (VALUES (''), ('a b'), (E'a\n'), (E'a\nb'), ('é'), ('a/b'), ('a''b'), (repeat('x', 65))) AS names (name);
SELECT throws_ok($$EXECUTE add_token('a', sha256('y'))$$, '23505', NULL, 'a label is unique');
SELECT throws_ok($$EXECUTE add_token('c', sha256('a'))$$, '23505', NULL, 'a digest is unique');
SELECT throws_ok($$EXECUTE add_token('c', NULL)$$, '23502', NULL, 'a digest is required');
SELECT throws_ok(format('EXECUTE add_token(%L, %L)', 'c', bytes), '23514', NULL, 'a digest may not have ' || length(bytes) || ' bytes')
FROM (VALUES (''::bytea), (substr(sha256('x'), 2)), (sha256('x') || '\x00')) AS digests (bytes);
SELECT throws_ok($$UPDATE public.access_tokens SET expires_at = 'infinity'$$, '23514', NULL, 'expires_at may not be infinity');

-- A scope of nothing, or of what cannot be, must never be stored: a token that sees nothing is
-- a mistake, and one whose scope is not what it seems may see too much.
PREPARE set_scope(text[]) AS UPDATE public.access_tokens SET sources = $1 WHERE label = 'a';
CREATE FUNCTION pg_temp.names(count integer) RETURNS text[] LANGUAGE sql AS $$
  SELECT array_agg('monitor-' || i) FROM generate_series(1, count) AS i
$$;
SELECT lives_ok(format('EXECUTE set_scope(%L)', scope), 'a scope may be ' || left(scope::text, 40))
FROM (VALUES (NULL), (ARRAY['a']), ('{a,b,a}'), ('{lab-*}'), ('{"a b","~!*"}'), ('{"a *"}'), (ARRAY[repeat('x', 255)]),
  (ARRAY[repeat('x', 254) || '*']), (pg_temp.names(500))) AS scopes (scope);
SELECT throws_ok(format('EXECUTE set_scope(%L)', scope), '23514', NULL, 'a scope may not be ' || left(scope::text, 40))
FROM (VALUES (ARRAY[]::text[]), ('{NULL}'), ('{a,NULL}'), ('{""}'), ('{a,""}'), ('{*}'), ('{a,*}'), ('{**}'), ('{a**}'), ('{a*b}'),
  ('{*a}'), ('{*a*}'), ('{" a"}'), ('{"a "}'), ('{é}'), (ARRAY[E'a\n']), (ARRAY[E'a\nb']), (ARRAY[E'\ta']), ('{{a},{b}}'),
  (ARRAY[repeat('x', 256)]), (ARRAY[repeat('x', 255) || '*']), (pg_temp.names(501)), (pg_temp.names(10000))) AS scopes (scope);

SELECT * FROM finish();
ROLLBACK;
