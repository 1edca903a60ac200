BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'monitor_keys', ARRAY['source', 'public_key', 'created_at', 'slot']);
SELECT col_type_is('public', 'monitor_keys', 'source', 'text', 'source is text');
SELECT col_type_is('public', 'monitor_keys', 'public_key', 'bytea', 'public_key is bytea');
SELECT col_type_is('public', 'monitor_keys', 'created_at', 'timestamp with time zone', 'created_at is timestamptz');
SELECT col_default_is('public', 'monitor_keys', 'created_at', 'now()', 'created_at is now() by default');
SELECT col_not_null('public', 'monitor_keys', name, name || ' is never null')
FROM unnest(ARRAY['source', 'public_key', 'created_at', 'slot']) AS name;
SELECT col_is_pk('public', 'monitor_keys', ARRAY['source', 'public_key']::name[], 'a source has a key once');
SELECT col_is_unique('public', 'monitor_keys', ARRAY['source', 'slot']::name[], 'a slot has one key');
SELECT table_owner_is('public', 'monitor_keys', 'steep_owner'::name);
SELECT table_privs_are('public', 'monitor_keys', role, ARRAY[]::text[])
FROM unnest(ARRAY['service_role', 'steep_ingest', 'steep_query']) AS role;

PREPARE add_key(text, bytea) AS INSERT INTO public.monitor_keys (source, public_key) VALUES ($1, $2);
CREATE FUNCTION pg_temp.key(n integer) RETURNS bytea LANGUAGE sql AS $$ SELECT sha256(n::text::bytea) $$;

SELECT lives_ok(format('EXECUTE add_key(%L, pg_temp.key(1))', name), 'a source may be ' || to_json(name))
FROM (VALUES ('m'), ('mac book'), ('!~'), (repeat('x', 255)), ('a,b:c"''\')) AS names (name);
SELECT throws_ok(format('EXECUTE add_key(%L, pg_temp.key(1))', name), '23514', NULL, 'a source may not be ' || to_json(name))
FROM (VALUES (''), (' '), (' m'), ('m '), (E'm\n'), (E'm\nn'), (E'\tm'), (E'm\x7f'), ('Müller'), ('m' || chr(160)),
  (repeat('x', 256))) AS names (name);
SELECT throws_ok('EXECUTE add_key(NULL, pg_temp.key(1))', '23502', NULL, 'a source may not be null');
SELECT throws_ok(format('EXECUTE add_key(%L, %L)', 'm', bytes), '23514', NULL, 'a key is not of ' || length(bytes) || ' bytes')
FROM (VALUES (''::bytea), (substr(pg_temp.key(1), 2)), (pg_temp.key(1) || '\x00')) AS keys (bytes);
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(1))$$, '23505', NULL, 'a source has a key once');
DELETE FROM public.monitor_keys;

-- At most 8 of a source.
SELECT lives_ok(format('EXECUTE add_key(%L, pg_temp.key(%s))', 'm', n), format('key %s of 8', n)) FROM generate_series(1, 8) AS n;
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(9))$$, '23514', 'a source has at most 8 public keys', 'there is no ninth');
SELECT lives_ok($$EXECUTE add_key('n', pg_temp.key(1))$$, 'another source has its own 8, and may have the same key');
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(8))$$, '23505', NULL, 'one of the 8 again is a duplicate, not a ninth');
SELECT lives_ok($$INSERT INTO public.monitor_keys (source, public_key) VALUES ('m', pg_temp.key(8)) ON CONFLICT DO NOTHING$$,
  '... which ON CONFLICT skips');
SELECT throws_ok($$UPDATE public.monitor_keys SET source = 'm', public_key = pg_temp.key(9) WHERE source = 'n'$$, '23514', NULL,
  'a rename makes no ninth');
SELECT lives_ok($$DELETE FROM public.monitor_keys WHERE source = 'm' AND public_key = pg_temp.key(3)$$);
SELECT lives_ok($$EXECUTE add_key('m', pg_temp.key(9))$$, 'where one was removed there is room');
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(10))$$, '23514', NULL, '... for one');
SELECT throws_ok($$INSERT INTO public.monitor_keys (source, public_key) SELECT 'o', pg_temp.key(n) FROM generate_series(1, 9) AS n$$,
  '23514', NULL, 'no nine in one statement');
SELECT lives_ok($$INSERT INTO public.monitor_keys (source, public_key) SELECT 'o', pg_temp.key(n) FROM generate_series(1, 8) AS n$$,
  '... but eight');
ALTER TABLE public.monitor_keys DISABLE TRIGGER USER;
SELECT throws_ok($$INSERT INTO public.monitor_keys (source, public_key, slot) VALUES ('m', pg_temp.key(10), 9)$$,
  '23514', NULL, 'without the trigger there is no ninth slot');
SELECT throws_ok($$INSERT INTO public.monitor_keys (source, public_key, slot) VALUES ('m', pg_temp.key(10), 8)$$,
  '23505', NULL, '... and none for two');

SELECT * FROM finish();
ROLLBACK;
