BEGIN;
SELECT no_plan();

SELECT has_function('public', 'bulk_insert_batches', ARRAY['integer[]', 'jsonb[]']);
SELECT is(pg_get_function_arguments('public.bulk_insert_batches'::regproc), 'positions integer[], batches jsonb[]',
  'its parameters are named positions and batches');
SELECT is(pg_get_function_result('public.bulk_insert_batches'::regproc), 'TABLE("position" integer, inserted_count bigint)');
SELECT is_definer('public', 'bulk_insert_batches', ARRAY['integer[]', 'jsonb[]']);
SELECT volatility_is('public', 'bulk_insert_batches', ARRAY['integer[]', 'jsonb[]'], 'volatile');

CREATE FUNCTION pg_temp.event(id text, changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('id', id, 'source', 'm', 'timestamp', '2026-02-03T14:35:00Z', 'type', 'tool',
    'payload', '{}'::jsonb) || changes
$$;
-- batch(NAME, IDS): an event for each id; its payload names the batch and the event's place in it.
CREATE FUNCTION pg_temp.batch(name text, VARIADIC ids text[] DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
  SELECT coalesce(jsonb_agg(pg_temp.event(id, jsonb_build_object('payload', name || place)) ORDER BY place), '[]')
  FROM unnest(ids) WITH ORDINALITY AS given (id, place)
$$;
PREPARE store(integer[], jsonb[]) AS SELECT position, inserted_count FROM public.bulk_insert_batches($1, $2) ORDER BY position;
PREPARE payloads(text) AS SELECT id COLLATE "default", payload#>>'{}' FROM public.events WHERE id LIKE $1 ORDER BY id;

-- As the program, which has no privileges on the table.
SET SESSION AUTHORIZATION steep_ingest;
SELECT results_eq(format('EXECUTE store(%L, %L)', '{7,-3,0,12}', ARRAY[pg_temp.batch('a', 'evt_a1', 'evt_a3', 'evt_a5'),
    pg_temp.batch('b', 'evt_a4', 'evt_a2'), pg_temp.batch('c'), pg_temp.batch('d', 'evt_a6')]),
  'VALUES (-3, 2::bigint), (0, 0), (7, 3), (12, 1)', 'each count comes with its batch''s position');
SELECT results_eq(format('EXECUTE store(%L, %L)', '{1,2,3,4}', ARRAY[pg_temp.batch('e', 'evt_a1', 'evt_b1'),
    pg_temp.batch('f', 'evt_a4', 'evt_a2'), pg_temp.batch('g'), pg_temp.batch('h', 'evt_b3', 'evt_a6', 'evt_b2')]),
  'VALUES (1, 1::bigint), (2, 0), (3, 0), (4, 2)', '... so does each count of a group with duplicates');
SELECT results_eq(format('EXECUTE store(%L, %L)', '{1,2,3}', ARRAY[pg_temp.batch('i', 'evt_c1', 'evt_c2', 'evt_c1'),
    pg_temp.batch('j', 'evt_c3', 'evt_c2'), pg_temp.batch('k', 'evt_c3', 'evt_c1')]),
  'VALUES (1, 2::bigint), (2, 1), (3, 0)', 'an id that repeats in a group is counted for the first batch');
SELECT results_eq(format('EXECUTE store(%L, %L)', '{30,20,10}', ARRAY[pg_temp.batch('l', 'evt_d1'),
    pg_temp.batch('m', 'evt_d1'), pg_temp.batch('n', 'evt_d2', 'evt_d1', 'evt_d1')]),
  'VALUES (10, 2::bigint), (20, 0), (30, 0)', 'the first is the one with the lowest position');
SELECT is_empty($$EXECUTE store('{}', '{}')$$, 'an empty group returns nothing');
SELECT is_empty($$EXECUTE store(NULL, NULL)$$, '... nor does NULL');
SELECT results_eq(format('EXECUTE store(%L, %L)', '{1,2}', ARRAY[NULL, pg_temp.batch('o', 'evt_e1')]),
  'VALUES (1, 0::bigint), (2, 1)', 'a batch that is NULL inserts nothing, as with bulk_insert_events');
SELECT results_eq(format('EXECUTE store(%L, %L)', '{1,2}', ARRAY[NULL, pg_temp.batch('o', 'evt_e1')]),
  'VALUES (1, 0::bigint), (2, 0)', '... also beside duplicates');
RESET SESSION AUTHORIZATION;

SELECT results_eq($$EXECUTE payloads('evt\_a%')$$, $$VALUES ('evt_a1', 'a1'), ('evt_a2', 'b2'), ('evt_a3', 'a2'), ('evt_a4', 'b1'),
  ('evt_a5', 'a3'), ('evt_a6', 'd1')$$, 'a duplicate changes nothing');
SELECT results_eq($$EXECUTE payloads('evt\_b%')$$, $$VALUES ('evt_b1', 'e2'), ('evt_b2', 'h3'), ('evt_b3', 'h1')$$,
  'new events beside duplicates are stored');
SELECT results_eq($$EXECUTE payloads('evt\_c%')$$, $$VALUES ('evt_c1', 'i1'), ('evt_c2', 'i2'), ('evt_c3', 'j1')$$,
  'of equal ids the first in line is stored');
SELECT results_eq($$EXECUTE payloads('evt\_d%')$$, $$VALUES ('evt_d1', 'n2'), ('evt_d2', 'n1')$$,
  '... which is by position, then by place in the batch');

-- Rows are inserted in byte order, whatever the database's collation.
SELECT lives_ok(format('EXECUTE store(%L, %L)', '{1,2}', ARRAY[pg_temp.batch('p', 'evt_order_b', 'evt_order_B', 'evt_order_é'),
  pg_temp.batch('q', 'evt_order_a', 'evt_order__')]));
SELECT results_eq($$SELECT substr(id, 11) COLLATE "default" FROM public.events WHERE id LIKE 'evt\_order\_%' ORDER BY ctid$$,
  $$VALUES ('B'), ('_'), ('a'), ('b'), ('é')$$, 'rows are inserted in byte order of their ids');
SELECT lives_ok(format('EXECUTE store(%L, %L)', '{1,2}', ARRAY[pg_temp.batch('r', 'evt_order_c', 'evt_order_C'),
  pg_temp.batch('s', 'evt_order_a', 'evt_order_A')]));
SELECT results_eq($$SELECT substr(id, 11) COLLATE "default" FROM public.events WHERE id LIKE 'evt\_order\_%' ORDER BY ctid DESC LIMIT 3$$,
  $$VALUES ('c'), ('C'), ('A')$$, '... also beside duplicates');

-- One invalid batch, of which and beside which nothing is stored; the group's other ids are new, or some exist.
SELECT throws_ok(format('EXECUTE store(%L, %L)', '{1,2,3}', ARRAY[pg_temp.batch('t', 'evt_whole', other), broken, pg_temp.batch('u', 'evt_whole2')]),
  state, NULL, format('refused: %s, beside %s', what, other))
FROM (VALUES
  ('no id', jsonb_build_array(pg_temp.event('evt_x') - 'id'), '23502'),
  ('no source', jsonb_build_array(pg_temp.event('evt_x') - 'source'), '23502'),
  ('an unknown type', jsonb_build_array(pg_temp.event('evt_x', '{"type": "other"}')), '23514'),
  ('an unknown type of a duplicate', jsonb_build_array(pg_temp.event('evt_x'), pg_temp.event('evt_x', '{"type": "other"}')), '23514'),
  ('an unknown type of another batch''s duplicate', jsonb_build_array(pg_temp.event('evt_whole', '{"type": "other"}')), '23514'),
  ('an unknown type of an event that exists', jsonb_build_array(pg_temp.event('evt_a1', '{"type": "other"}')), '23514'),
  ('an invalid timestamp', jsonb_build_array(pg_temp.event('evt_x', '{"timestamp": "yesterday noon"}')), '22007'),
  ('30 February', jsonb_build_array(pg_temp.event('evt_x', '{"timestamp": "2026-02-30T00:00:00Z"}')), '22008'),
  ('an id too long', jsonb_build_array(pg_temp.event(repeat('x', 256))), '23514'),
  ('an object instead of an array', '{"id": "evt_x"}', '22023'),
  ('null instead of an array', 'null', '22023'),
  ('an array in an array', '[[]]', '23502')
) AS broken (what, broken, state), unnest(ARRAY['evt_new', 'evt_a1']) AS other;
SELECT is_empty($$EXECUTE payloads('evt\_whole%')$$, 'nothing of a refused group is stored');

SELECT throws_ok(format('EXECUTE store(%L, %L)', positions, batches), '22023', 'positions and batches must have the same length',
  'refused: ' || what)
FROM (VALUES
  ('a position without a batch', '{1,2}', ARRAY[pg_temp.batch('v', 'evt_v')]),
  ('a batch without a position', '{1}', ARRAY[pg_temp.batch('v', 'evt_v'), '[]']),
  ('no positions', '{}', ARRAY[pg_temp.batch('v', 'evt_v')]),
  ('NULL instead of positions', NULL, ARRAY[pg_temp.batch('v', 'evt_v')]),
  ('NULL instead of batches', '{1}', NULL)
) AS unequal (what, positions, batches);
SELECT is_empty($$EXECUTE payloads('evt\_v')$$, '... and nothing is stored');

-- Random groups, compared with bulk_insert_events for one batch after the other: the same counts, the same events, or
-- the same refusal. Each attempt is rolled back, except the last of a round, so that some ids exist in the next.
SET timezone = 'Asia/Kolkata';
CREATE FUNCTION pg_temp.random_event(ids integer) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('id', 'evt_random_' || (random() * ids)::integer, 'source', (ARRAY['m', 'n', 'Müller'])[1 + (random() * 2)::integer],
    'timestamp', (ARRAY['2026-02-03T14:35:00.1234567Z', '2026-02-03 14:35:00', '2026-02-03T15:35:00+01:00', '3 Feb 2026'])[1 + (random() * 3)::integer],
    (ARRAY['type', 'eventType'])[1 + (random() * 1)::integer], CASE WHEN random() < 0.01 THEN 'other' ELSE 'tool' END,
    'payload', jsonb_build_object('n', random(), 'digits', 12345678901234567890.10))
$$;
CREATE FUNCTION pg_temp.state() RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(string_agg(e::text, E'\n' ORDER BY id), '') FROM public.events AS e
$$;
CREATE FUNCTION pg_temp.round(number integer) RETURNS TABLE (difference text, kind text) LANGUAGE plpgsql AS $$
DECLARE
  ids CONSTANT integer := (ARRAY[12, 100, 1000000000])[1 + (random() * 2)::integer];
  positions CONSTANT integer[] := ARRAY(SELECT n * 3 - 5 FROM generate_series(1, (random() * 7)::integer) AS n ORDER BY random());
  batches CONSTANT jsonb[] := ARRAY(
    SELECT coalesce((SELECT jsonb_agg(pg_temp.random_event(ids)) FROM generate_series(1, (random() * 8)::integer + 0 * batch)), '[]')
    FROM unnest(positions) AS batch);
  wanted text;
  got text;
  one record;
BEGIN
  BEGIN
    wanted := '';
    FOR one IN SELECT * FROM unnest(positions, batches) AS batch (position, events) ORDER BY position LOOP
      wanted := wanted || format('%s: %s, ', one.position, public.bulk_insert_events(one.events));
    END LOOP;
    wanted := wanted || pg_temp.state();
    RAISE 'undo' USING ERRCODE = 'ZZ001';
  EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL; WHEN check_violation THEN wanted := SQLSTATE;
  END;
  BEGIN
    got := '';
    FOR one IN SELECT * FROM public.bulk_insert_batches(positions, batches) ORDER BY position LOOP
      got := got || format('%s: %s, ', one.position, one.inserted_count);
    END LOOP;
    got := got || pg_temp.state();
  EXCEPTION WHEN check_violation THEN got := SQLSTATE;
  END;
  DELETE FROM public.events WHERE random() < 0.3;
  difference := CASE WHEN got <> wanted THEN format(E'%s\n%s\n%s\n%s', positions, batches, wanted, got) END;
  kind := CASE
    WHEN wanted = '23514' THEN 'refused'
    WHEN cardinality(positions) = 0 THEN 'empty'
    WHEN ids > 1000 THEN 'new'
    ELSE 'duplicates'
  END;
  RETURN NEXT;
END
$$;
DELETE FROM public.events;
CREATE TEMP TABLE rounds AS SELECT compared.* FROM generate_series(1, 400) AS number, pg_temp.round(number) AS compared;
SELECT is_empty('SELECT difference FROM rounds WHERE difference IS NOT NULL', 'each batch''s count is that of bulk_insert_events for one after the other');
SELECT results_eq('SELECT DISTINCT kind FROM rounds ORDER BY kind', $$VALUES ('duplicates'), ('empty'), ('new'), ('refused')$$, '... for groups of every kind');
SELECT is_empty('SELECT * FROM public.check_hourly_counts()', '... and the hourly counts are correct');
RESET timezone;

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
SELECT lives_ok($$SELECT public.bulk_insert_batches('{1}', ARRAY['[{"id": "evt_safe", "source": "m",
  "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": {}}]'::jsonb])$$, 'the caller''s search_path has no effect');
SELECT lives_ok($$SELECT public.bulk_insert_batches('{1}', ARRAY['[{"id": "evt_safe", "source": "m",
  "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": {}}]'::jsonb])$$, '... nor beside duplicates');
RESET SESSION AUTHORIZATION;
SELECT is((SELECT count(*) FROM pg_temp.events), 0::bigint, 'a temporary table of the same name gets no rows');
SELECT is((SELECT count(*) FROM public.events WHERE id = 'evt_safe'), 1::bigint, '... they are in the real table');

SELECT * FROM finish();
ROLLBACK;
