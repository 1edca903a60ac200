BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'monitor_keys', ARRAY['source', 'public_key', 'created_at', 'slot']);
SELECT col_type_is('public', 'monitor_keys', 'source', 'text', 'source is text');
SELECT col_type_is('public', 'monitor_keys', 'public_key', 'bytea', 'public_key is bytea');
SELECT col_type_is('public', 'monitor_keys', 'created_at', 'timestamp with time zone', 'created_at is timestamptz');
SELECT col_default_is('public', 'monitor_keys', 'created_at', 'now()', 'created_at is now() by default');
SELECT col_not_null('public', 'monitor_keys', name, name || ' is never null')
FROM unnest(ARRAY['source', 'public_key', 'created_at', 'slot']) AS name;
SELECT col_is_pk('public', 'monitor_keys', ARRAY['source', 'public_key']::name[], 'a key is unique within its source');
SELECT col_is_unique('public', 'monitor_keys', ARRAY['source', 'slot']::name[], 'a slot is unique within its source');

PREPARE add_key(text, bytea) AS INSERT INTO public.monitor_keys (source, public_key) VALUES ($1, $2);
CREATE FUNCTION pg_temp.key(n integer) RETURNS bytea LANGUAGE sql AS $$ SELECT sha256(n::text::bytea) $$;

SELECT lives_ok(format('EXECUTE add_key(%L, pg_temp.key(1))', name), 'a source may be ' || to_json(name))
FROM (VALUES ('m'), ('mac book'), ('!~'), (repeat('x', 255)), ('a,b:c"''\')) AS names (name);
SELECT throws_ok(format('EXECUTE add_key(%L, pg_temp.key(1))', name), '23514', NULL, 'a source may not be ' || to_json(name))
FROM (VALUES (''), (' '), (' m'), ('m '), (E'm\n'), (E'm\nn'), (E'\tm'), (E'm\x7f'), ('Müller'), ('m' || chr(160)),
  (repeat('x', 256))) AS names (name);
SELECT throws_ok('EXECUTE add_key(NULL, pg_temp.key(1))', '23502', NULL, 'a source may not be null');
SELECT throws_ok(format('EXECUTE add_key(%L, %L)', 'm', bytes), '23514', NULL, 'a key may not have ' || length(bytes) || ' bytes')
FROM (VALUES (''::bytea), (substr(pg_temp.key(1), 2)), (pg_temp.key(1) || '\x00')) AS keys (bytes);
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(1))$$, '23505', NULL, 'a key is unique within its source');
DELETE FROM public.monitor_keys;

-- At most 8 keys for each source.
SELECT lives_ok(format('EXECUTE add_key(%L, pg_temp.key(%s))', 'm', n), format('key %s of 8 is accepted', n)) FROM generate_series(1, 8) AS n;
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(9))$$, '23514', 'a source has at most 8 public keys', 'a ninth key is refused');
SELECT lives_ok($$EXECUTE add_key('n', pg_temp.key(1))$$, 'another source has 8 slots of its own, and may have the same key');
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(8))$$, '23505', NULL, 'one of the 8 added again is reported as a duplicate');
SELECT lives_ok($$INSERT INTO public.monitor_keys (source, public_key) VALUES ('m', pg_temp.key(8)) ON CONFLICT DO NOTHING$$,
  '... which ON CONFLICT skips');
SELECT throws_ok($$UPDATE public.monitor_keys SET source = 'm', public_key = pg_temp.key(9) WHERE source = 'n'$$, '23514', NULL,
  'an UPDATE cannot create a ninth');
SELECT lives_ok($$DELETE FROM public.monitor_keys WHERE source = 'm' AND public_key = pg_temp.key(3)$$);
SELECT lives_ok($$EXECUTE add_key('m', pg_temp.key(9))$$, 'a removed key frees its slot');
SELECT throws_ok($$EXECUTE add_key('m', pg_temp.key(10))$$, '23514', NULL, '... for one key');
SELECT throws_ok($$INSERT INTO public.monitor_keys (source, public_key) SELECT 'o', pg_temp.key(n) FROM generate_series(1, 9) AS n$$,
  '23514', NULL, 'nine keys in one statement are refused');
SELECT lives_ok($$INSERT INTO public.monitor_keys (source, public_key) SELECT 'o', pg_temp.key(n) FROM generate_series(1, 8) AS n$$,
  '... and eight accepted');
ALTER TABLE public.monitor_keys DISABLE TRIGGER USER;
SELECT throws_ok($$INSERT INTO public.monitor_keys (source, public_key, slot) VALUES ('m', pg_temp.key(10), 9)$$,
  '23514', NULL, 'without the trigger, constraints refuse a ninth slot');
SELECT throws_ok($$INSERT INTO public.monitor_keys (source, public_key, slot) VALUES ('m', pg_temp.key(10), 8)$$,
  '23505', NULL, '... and a slot for two keys');

SELECT * FROM finish();
ROLLBACK;
