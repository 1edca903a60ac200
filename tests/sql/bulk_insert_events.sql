BEGIN;
SELECT no_plan();

SELECT has_function('public', 'bulk_insert_events', ARRAY['jsonb']);
SELECT is(pg_get_function_arguments('public.bulk_insert_events'::regproc), 'events_json jsonb', 'its parameter is named events_json');
SELECT is(pg_get_function_result('public.bulk_insert_events'::regproc), 'TABLE(inserted_count bigint)');
SELECT is_definer('public', 'bulk_insert_events', ARRAY['jsonb']);
SELECT volatility_is('public', 'bulk_insert_events', ARRAY['jsonb'], 'volatile');

CREATE FUNCTION pg_temp.event(id text, changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('id', id, 'source', 'm', 'timestamp', '2026-02-03T14:35:00Z', 'type', 'tool',
    'payload', '{}'::jsonb) || changes
$$;
PREPARE stored(text) AS
  SELECT id COLLATE "default", source COLLATE "default", timestamp, event_type, payload FROM public.events WHERE id = $1;
GRANT SELECT ON public.events TO steep_ingest;

-- Batches are sent as the program, which RLS keeps from reading the table.
SET SESSION AUTHORIZATION steep_ingest;
SELECT is(inserted_count, 2::bigint, 'a batch is stored, and its events are counted')
FROM public.bulk_insert_events(jsonb_build_array(
  pg_temp.event('evt_a', '{"timestamp": "2026-02-03T15:35:00.1234567+01:00", "payload": {"n": 12345678901234567890.10, "x": [null]}}'),
  pg_temp.event('evt_b', '{"source": "Müller"}')));
SELECT is(inserted_count, 1::bigint, 'duplicates are not counted')
FROM public.bulk_insert_events(jsonb_build_array(
  pg_temp.event('evt_b', '{"source": "thief", "payload": {"changed": true}}'), pg_temp.event('evt_c')));
SELECT is(inserted_count, 0::bigint, 'a batch sent again inserts nothing')
FROM public.bulk_insert_events(jsonb_build_array(pg_temp.event('evt_c')));
SELECT is(inserted_count, 1::bigint, 'an id given twice in a batch is one event')
FROM public.bulk_insert_events(jsonb_build_array(
  pg_temp.event('evt_d', '{"payload": {"n": 1}}'), pg_temp.event('evt_d', '{"payload": {"n": 2}}')));
SELECT is(inserted_count, 0::bigint, 'an empty batch inserts nothing') FROM public.bulk_insert_events('[]');
SELECT is(inserted_count, 0::bigint, 'NULL inserts nothing') FROM public.bulk_insert_events(NULL);
RESET SESSION AUTHORIZATION;

SELECT results_eq($$EXECUTE stored('evt_a')$$, $$VALUES ('evt_a', 'm', '2026-02-03T14:35:00.123457Z'::timestamptz,
  'tool', '{"n": 12345678901234567890.10, "x": [null]}'::jsonb)$$, 'an event is stored as it was sent');
SELECT is((SELECT payload::text FROM public.events WHERE id = 'evt_a'), '{"n": 12345678901234567890.10, "x": [null]}',
  '... with every digit of its numbers');
SELECT is((SELECT created_at FROM public.events WHERE id = 'evt_a'), now(), '... and created_at is the current time');
SELECT is((SELECT source FROM public.events WHERE id = 'evt_b'), 'Müller', 'a duplicate changes nothing');
SELECT is((SELECT payload FROM public.events WHERE id = 'evt_d'), '{"n": 1}', 'of two events with one id the first is stored');

SELECT is(inserted_count, 500::bigint, '1500 events with 500 ids are 500 events')
FROM public.bulk_insert_events((
  SELECT jsonb_agg(pg_temp.event('evt_many_' || i % 500, jsonb_build_object('payload', jsonb_build_object('n', i))) ORDER BY i)
  FROM generate_series(0, 1499) AS i));
SELECT is((SELECT max((payload->>'n')::int) FROM public.events WHERE id LIKE 'evt\_many\_%'), 499, '... the first of each');

-- Rows are inserted in byte order, whatever the database's collation.
SELECT lives_ok($$SELECT public.bulk_insert_events(jsonb_build_array(pg_temp.event('evt_order_b'),
  pg_temp.event('evt_order_B'), pg_temp.event('evt_order_é'), pg_temp.event('evt_order_a'), pg_temp.event('evt_order__')))$$);
SELECT results_eq($$SELECT substr(id, 11) COLLATE "default" FROM public.events WHERE id LIKE 'evt\_order\_%' ORDER BY ctid$$,
  $$VALUES ('B'), ('_'), ('a'), ('b'), ('é')$$, 'rows are inserted in byte order of their ids');
SELECT is(inserted_count, 3::bigint, 'new ids beside duplicates are inserted')
FROM public.bulk_insert_events(jsonb_build_array(pg_temp.event('evt_order_c'), pg_temp.event('evt_order_B'),
  pg_temp.event('evt_order_C'), pg_temp.event('evt_order_a'), pg_temp.event('evt_order_A')));
SELECT results_eq($$SELECT substr(id, 11) COLLATE "default" FROM public.events WHERE id LIKE 'evt\_order\_%' ORDER BY ctid DESC LIMIT 3$$,
  $$VALUES ('c'), ('C'), ('A')$$, '... in byte order too');

SELECT is(inserted_count, 3::bigint, 'the type may be named eventType, type, or both')
FROM public.bulk_insert_events(jsonb_build_array(
  pg_temp.event('evt_type_1') - 'type' || '{"eventType": "agent"}',
  pg_temp.event('evt_type_2') || '{"eventType": "error", "type": "tool"}',
  pg_temp.event('evt_type_3')));
SELECT results_eq($$SELECT event_type FROM public.events WHERE id LIKE 'evt\_type\_%' ORDER BY id$$,
  $$VALUES ('agent'), ('error'), ('tool')$$, 'eventType takes precedence over type');
SELECT throws_ok($$SELECT public.bulk_insert_events(jsonb_build_array(pg_temp.event('evt_x') || '{"eventType": "bad"}'))$$,
  '23514', NULL, '... even if only type is valid');

-- Invalid batches, of which nothing is stored.
PREPARE batch_with(text) AS
  SELECT public.bulk_insert_events(jsonb_build_array(pg_temp.event('evt_whole'), $1::jsonb));
SELECT throws_ok(format('EXECUTE batch_with(%L)', broken), state, NULL, 'refused: ' || what)
FROM (VALUES
  ('no id', pg_temp.event('evt_x') - 'id', '23502'),
  ('an id that is null', pg_temp.event('evt_x', '{"id": null}'), '23502'),
  ('no source', pg_temp.event('evt_x') - 'source', '23502'),
  ('no timestamp', pg_temp.event('evt_x') - 'timestamp', '23502'),
  ('no type', pg_temp.event('evt_x') - 'type', '23502'),
  ('no payload', pg_temp.event('evt_x') - 'payload', '23502'),
  ('an unknown type', pg_temp.event('evt_x', '{"type": "other"}'), '23514'),
  ('an invalid timestamp', pg_temp.event('evt_x', '{"timestamp": "yesterday noon"}'), '22007'),
  ('30 February', pg_temp.event('evt_x', '{"timestamp": "2026-02-30T00:00:00Z"}'), '22008'),
  ('an id too long', pg_temp.event(repeat('x', 256)), '23514'),
  ('a source too long', pg_temp.event('evt_x', jsonb_build_object('source', repeat('x', 256))), '23514'),
  ('a number', '1', '23502'),
  ('null', 'null', '23502'),
  ('an array', '[]', '23502')
) AS broken (what, broken, state);
SELECT throws_ok($$SELECT public.bulk_insert_events(jsonb_build_array(pg_temp.event('evt_a'), pg_temp.event('evt_whole'),
  pg_temp.event('evt_x', '{"type": "other"}')))$$, '23514', NULL, 'refused: an invalid event after a duplicate');
SELECT throws_ok($$SELECT public.bulk_insert_events('{"id": "evt_x"}')$$, '22023', NULL, 'refused: an object instead of an array');
SELECT throws_ok($$SELECT public.bulk_insert_events('"evt_x"')$$, '22023', NULL, 'refused: a string instead of an array');
SELECT throws_ok($$SELECT public.bulk_insert_events('null')$$, '22023', NULL, 'refused: null instead of an array');
SELECT is_empty($$EXECUTE stored('evt_whole')$$, 'nothing of a refused batch is stored');

-- A timestamp without an offset is UTC, in any session.
SET timezone = 'Asia/Kolkata';
SELECT lives_ok($$SELECT public.bulk_insert_events(jsonb_build_array(
  pg_temp.event('evt_local', '{"timestamp": "2026-02-03 14:35:00"}')))$$);
SELECT is((SELECT timestamp FROM public.events WHERE id = 'evt_local'), '2026-02-03T14:35:00Z'::timestamptz,
  '... whatever the session''s TimeZone');

-- Attempts to make the definer function call or write something else.
CREATE TEMP TABLE events (LIKE public.events INCLUDING ALL);
GRANT ALL ON pg_temp.events TO PUBLIC;
CREATE SCHEMA hijack;
GRANT USAGE ON SCHEMA hijack TO PUBLIC;
CREATE FUNCTION hijack.jsonb_array_elements(jsonb) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
  BEGIN RAISE 'hijacked by %', current_user USING ERRCODE = 'ZZ001'; END $$;
CREATE FUNCTION hijack.get(jsonb, text) RETURNS text LANGUAGE plpgsql AS $$
  BEGIN RAISE 'hijacked by %', current_user USING ERRCODE = 'ZZ001'; END $$;
CREATE OPERATOR hijack.->> (FUNCTION = hijack.get, LEFTARG = jsonb, RIGHTARG = text);
SET search_path = hijack, pg_temp, pg_catalog, public, tap;
SET SESSION AUTHORIZATION steep_ingest;
SELECT lives_ok($$SELECT public.bulk_insert_events('[{"id": "evt_safe", "source": "m",
  "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": {}}]')$$, 'the caller''s search_path has no effect');
RESET SESSION AUTHORIZATION;
SELECT is((SELECT count(*) FROM pg_temp.events), 0::bigint, 'a temporary table of the same name gets no rows');
SELECT is((SELECT count(*) FROM public.events WHERE id = 'evt_safe'), 1::bigint, '... they are in the real table');

SELECT * FROM finish();
ROLLBACK;
