-- The counts beside the events, and the triggers that keep them.
BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'hourly_counts', ARRAY['source', 'hour', 'event_count', 'date', 'hour_of_day']);
SELECT col_is_pk('public', 'hourly_counts', ARRAY['source', 'hour'], 'an hour of a source is there once');
SELECT columns_are('public', 'hourly_count_deltas', ARRAY['source', 'hour', 'event_count']);
SELECT hasnt_pk('public', 'hourly_count_deltas', 'but may be noted several times beside it');
SELECT table_owner_is('public', name::name, 'steep_owner'::name)
FROM unnest(ARRAY['hourly_counts', 'hourly_count_deltas']) AS name;
SELECT table_privs_are('public', name::name, role::name, ARRAY[]::text[])
FROM unnest(ARRAY['hourly_counts', 'hourly_count_deltas']) AS name,
  unnest(ARRAY['service_role', 'steep_ingest', 'steep_query']) AS role;
SELECT triggers_are('public', 'events', ARRAY['count_inserted', 'count_updated', 'count_deleted', 'truncate_counts']);
SELECT indexes_are('public', 'hourly_counts', ARRAY['hourly_counts_pkey', 'idx_hourly_counts_hour']);
SELECT indexes_are('public', 'hourly_count_deltas', ARRAY['idx_hourly_count_deltas_hour']);

CREATE TEMP VIEW our_functions (name, parameters) AS VALUES ('count_inserted_events', ARRAY[]::text[]),
  ('count_updated_events', '{}'), ('count_deleted_events', '{}'), ('truncate_hourly_counts', '{}'),
  ('check_hourly_counts', '{}'), ('rebuild_hourly_counts', '{}'),
  ('change_hourly_counts', ARRAY['text[]', 'timestamp with time zone[]', 'bigint[]']);
SELECT is_definer('public', name::name, parameters::name[]) FROM our_functions;
SELECT function_privs_are('public', name::name, parameters, role::name, ARRAY[]::text[])
FROM our_functions, unnest(ARRAY['service_role', 'steep_ingest', 'steep_query']) AS role;

CREATE FUNCTION pg_temp.counts() RETURNS TABLE (source text, hour text, event_count bigint) LANGUAGE sql AS $$
  SELECT source, to_char(hour AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), event_count FROM public.hourly_counts ORDER BY 1, 2
$$;
PREPARE counts AS SELECT * FROM pg_temp.counts();
PREPARE deltas AS
  SELECT source COLLATE "default", to_char(hour AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), event_count
  FROM public.hourly_count_deltas ORDER BY source, hour, event_count;
PREPARE wrong AS SELECT * FROM public.check_hourly_counts();
PREPARE nothing AS SELECT '', '', 0::bigint WHERE false;

-- As the two who write: neither may touch a count itself.
SET SESSION AUTHORIZATION service_role;
SET timezone = 'Asia/Kolkata';
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_1', 'a', '2026-02-03T10:00:00Z', 'tool', '{}'), ('evt_2', 'a', '2026-02-03T10:59:59.999999Z', 'tool', '{}'),
  ('evt_3', 'a', '2026-02-03T11:00:00Z', 'tool', '{}'), ('evt_4', 'B', '2026-02-03T10:30:00Z', 'tool', '{}');
RESET timezone;
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 10:00', 1::bigint), ('a', '02-03 10:00', 2), ('a', '02-03 11:00', 1)$$,
  'an INSERT is counted by source and hour of UTC');

SET SESSION AUTHORIZATION steep_ingest;
SELECT is(inserted_count, 1::bigint, 'a batch with a duplicate') FROM public.bulk_insert_events('[
  {"id": "evt_5", "source": "a", "timestamp": "2026-02-03T10:01:00Z", "type": "tool", "payload": {}},
  {"id": "evt_5", "source": "a", "timestamp": "2026-02-03T12:01:00Z", "type": "tool", "payload": {}},
  {"id": "evt_4", "source": "a", "timestamp": "2026-02-03T12:01:00Z", "type": "tool", "payload": {}}]');
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 10:00', 1::bigint), ('a', '02-03 10:00', 3), ('a', '02-03 11:00', 1)$$,
  '... adds what it stored, and no duplicate');
SELECT throws_ok($$INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_6', 'a', now(), 'tool', '{}'), ('evt_1', 'a', now(), 'tool', '{}')$$, '23505', NULL, 'an INSERT that fails');
INSERT INTO public.events SELECT * FROM public.events WHERE false;
SELECT is((SELECT sum(event_count) FROM pg_temp.counts()), 5::numeric, '... or stores nothing, counts nothing');
SELECT lives_ok($$INSERT INTO public.events (id, source, timestamp, event_type, payload)
  VALUES ('evt_4', 'B', now(), 'error', '{}'), ('evt_7', 'c', '2026-02-03T09:00:00Z', 'tool', '{}')
  ON CONFLICT (id) DO UPDATE SET event_type = excluded.event_type, timestamp = '2026-02-03T08:00:00Z'$$, 'an upsert');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 10:00', 3), ('a', '02-03 11:00', 1),
  ('c', '02-03 09:00', 1)$$, '... counts what it inserted, and moves what it updated');

SET SESSION AUTHORIZATION service_role;
UPDATE public.events SET payload = '{"a": 1}', timestamp = timestamp + interval '1 microsecond' WHERE id = 'evt_1';
SELECT throws_ok('SELECT * FROM public.hourly_counts', '42501', NULL, 'service_role reads no counts');
SELECT throws_ok('DELETE FROM public.hourly_counts', '42501', NULL, '... deletes none');
SELECT throws_ok($$INSERT INTO public.hourly_counts VALUES ('a', now(), 1)$$, '42501', NULL, '... and makes none');
SELECT throws_ok('SELECT * FROM public.hourly_count_deltas', '42501', NULL, '... nor what is noted beside them');
SELECT throws_ok($$SELECT public.change_hourly_counts('{a}', ARRAY[now()], '{1}')$$, '42501', NULL, '... and changes none');
RESET SESSION AUTHORIZATION;
CREATE TEMP TABLE before_update AS SELECT ctid AS place FROM public.hourly_counts;
UPDATE public.events SET payload = '{"a": 2}', event_type = 'error';
SELECT results_eq('SELECT ctid FROM public.hourly_counts', 'TABLE before_update', 'an UPDATE that moves nothing touches no count');
SET SESSION AUTHORIZATION service_role;
UPDATE public.events SET timestamp = timestamp + interval '1 hour' WHERE source = 'a';
UPDATE public.events SET source = 'd' WHERE id = 'evt_7';
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 3), ('a', '02-03 12:00', 1),
  ('d', '02-03 09:00', 1)$$, 'one that moves events to another hour or source moves their counts');

SET SESSION AUTHORIZATION service_role;
DELETE FROM public.events WHERE id IN ('evt_2', 'evt_3', 'evt_7', 'evt_none');
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 2)$$,
  'a DELETE takes away, and a count of 0 goes');
DELETE FROM public.events WHERE id = 'evt_none';
SAVEPOINT before_deletion;
DELETE FROM public.events;
SELECT results_eq('counts', 'nothing', '... to the last');
ROLLBACK TO before_deletion;
SELECT is_empty('wrong', 'what is rolled back is not counted either');

INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_8', 'z', 'infinity', 'tool', '{}'), ('evt_9', 'z', '-infinity', 'tool', '{}'),
  ('evt_bc', 'z', '4713-01-01 00:30:00+00 BC', 'tool', '{}'), ('evt_ad', 'z', '294276-12-31 23:59:59+00', 'tool', '{}');
SELECT is((SELECT count(*) FROM pg_temp.counts() WHERE source = 'z'), 4::bigint, 'infinite and extreme timestamps are counted');
SELECT results_eq($$SELECT date::text, hour, event_count FROM public.get_hourly_aggregates(7, 'z')$$,
  $$VALUES ('infinity', NULL::integer, 1::bigint), ('294276-12-31', 23, 1)$$, '... and answered as the data model''s query does');
DELETE FROM public.events WHERE source = 'z';
SELECT is_empty($$SELECT * FROM pg_temp.counts() WHERE source = 'z'$$, '... and gone with them');

-- Beside the counts, as two who meet leave it there: a part of a's events of an hour, all of c's, whose count somebody took
-- away at that moment.
CREATE FUNCTION pg_temp.note() RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_n' || i, CASE WHEN i < 6 THEN 'a' WHEN i < 9 THEN 'c' ELSE 'd' END, '2026-02-03T11:30:00Z', 'tool', '{}'
  FROM generate_series(1, 9) AS i;
  UPDATE public.hourly_counts SET event_count = event_count - 4 WHERE source = 'a' AND hour = '2026-02-03T11:00:00Z';
  DELETE FROM public.hourly_counts WHERE source = 'c';
  INSERT INTO public.hourly_count_deltas VALUES ('a', '2026-02-03T11:00:00Z', 3), ('a', '2026-02-03T11:00:00Z', 1),
    ('c', '2026-02-03T11:00:00Z', 3);
$$;
SAVEPOINT before_deltas;
SELECT pg_temp.note();
SELECT is_empty('wrong', 'check_hourly_counts knows what is noted beside the counts');
SELECT results_eq('SELECT source, hour, event_count FROM public.get_hourly_aggregates(36500)',
  $$VALUES ('a', 11, 7::bigint), ('c', 11, 3), ('d', 11, 1), ('B', 8, 1)$$, '... and get_hourly_aggregates, of all');
SELECT results_eq($$SELECT date, hour, event_count FROM public.get_hourly_aggregates(36500, 'a')$$,
  $$VALUES ('2026-02-03'::date, 11, 7::bigint)$$, '... and of one');
SELECT results_eq($$SELECT date, hour, event_count FROM public.get_hourly_aggregates(36500, 'c')$$,
  $$VALUES ('2026-02-03'::date, 11, 3::bigint)$$, '... also where there is no count');
SELECT results_eq($$SELECT hour, event_count FROM public.get_hourly_aggregates(36500, 'd')$$,
  'VALUES (11, 1::bigint)', '... and where nothing is noted');
SELECT is(public.rebuild_hourly_counts(), 12::bigint, 'rebuild_hourly_counts counts anew');
SELECT is_empty('deltas', '... and leaves nothing beside');
SELECT is_empty('wrong', '... and all is right');

ROLLBACK TO before_deltas;
SELECT pg_temp.note();
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_f1', 'a', '2026-02-03T11:00:00Z', 'tool', '{}');
SELECT results_eq('deltas', $$VALUES ('c', '02-03 11:00', 3::bigint)$$, 'an INSERT takes up what is noted beside its count');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 8), ('d', '02-03 11:00', 1)$$, '... and adds it');
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_f2', 'c', '2026-02-03T11:00:00Z', 'tool', '{}');
SELECT is_empty('deltas', '... also beside one that it makes');
SELECT is_empty('wrong', '... and all is right');

ROLLBACK TO before_deltas;
SELECT pg_temp.note();
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_f1', 'd', '2026-02-03T11:00:00Z', 'tool', '{}');
SELECT is((SELECT count(*) FROM public.hourly_count_deltas), 3::bigint, 'an INSERT leaves alone what is beside others'' counts');
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_f2', 'd', '2026-02-03T12:00:00Z', 'tool', '{}');
SELECT results_eq('deltas', $$VALUES ('c', '02-03 11:00', 3::bigint)$$, '... unless it begins an hour');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 7), ('d', '02-03 11:00', 2), ('d', '02-03 12:00', 1)$$,
  '... and adds it where it belongs');
SELECT is_empty('wrong', '... and all is right');

ROLLBACK TO before_deltas;
SELECT pg_temp.note();
DELETE FROM public.events WHERE id IN ('evt_n1', 'evt_n2', 'evt_n3', 'evt_n4', 'evt_n6');
SELECT is_empty('deltas', 'a DELETE takes up what is noted beside its counts');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 3), ('c', '02-03 11:00', 2), ('d', '02-03 11:00', 1)$$,
  '... however little the count itself says');
SELECT is_empty('wrong', '... and all is right');

ROLLBACK TO before_deltas;
SELECT pg_temp.note();
DELETE FROM public.events WHERE source IN ('a', 'c');
SELECT is_empty('deltas', 'a DELETE of all leaves nothing noted');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('d', '02-03 11:00', 1)$$, '... and no count');

ROLLBACK TO before_deltas;
SELECT pg_temp.note();
UPDATE public.events SET source = 'd' WHERE source IN ('a', 'c') AND id LIKE 'evt\_n%' AND id <> 'evt_n1';
SELECT is_empty('deltas', 'so does an UPDATE that moves them');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 3), ('d', '02-03 11:00', 8)$$, '... and their counts');
UPDATE public.events SET source = 'a' WHERE source = 'd';
SELECT is_empty('wrong', '... and all is right');

ROLLBACK TO before_deltas;
SELECT pg_temp.note();
INSERT INTO public.hourly_count_deltas VALUES ('a', '2026-02-03T11:00:00Z', -3);
SELECT results_eq('wrong', $$VALUES ('a', '2026-02-03T11:00:00Z'::timestamptz, 7::bigint, 4::bigint)$$, 'check_hourly_counts finds what is noted wrong');
SELECT throws_ok($$DELETE FROM public.events WHERE source = 'a'$$, 'XX001', NULL, '... and no sum falls below 0');
TRUNCATE public.events;
SELECT is_empty('deltas', 'TRUNCATE leaves nothing noted');
ROLLBACK TO before_deltas;

INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_8', 'z', 'infinity', 'tool', '{}'), ('evt_9', 'z', '294276-12-31 23:59:59+00', 'tool', '{}');
INSERT INTO public.hourly_count_deltas SELECT source, hour, event_count FROM public.hourly_counts WHERE source = 'z';
DELETE FROM public.hourly_counts WHERE source = 'z';
SELECT results_eq($$SELECT date::text, hour, event_count FROM public.get_hourly_aggregates(7, 'z')$$,
  $$VALUES ('infinity', NULL::integer, 1::bigint), ('294276-12-31', 23, 1)$$, 'what is noted for infinity is answered');
DELETE FROM public.events WHERE source = 'z';
SELECT is_empty('deltas', '... and gone with it');

-- What bypasses the triggers.
SET session_replication_role = replica;
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_r', 'r', '2026-02-03T10:00:00Z', 'tool', '{}');
DELETE FROM public.events WHERE source = 'B';
RESET session_replication_role;
SELECT results_eq('wrong', $$VALUES ('B', '2026-02-03T08:00:00Z'::timestamptz, 0::bigint, 1::bigint),
  ('r', '2026-02-03T10:00:00Z', 1, 0)$$, 'check_hourly_counts finds what bypassed the triggers');
SELECT throws_ok($$DELETE FROM public.events WHERE id = 'evt_r'$$, 'XX001', NULL, 'no count falls below 0');
SELECT throws_ok($$UPDATE public.events SET source = 'q' WHERE id = 'evt_r'$$, 'XX001', NULL, '... by an UPDATE either');
SELECT is(public.rebuild_hourly_counts(), 3::bigint, 'rebuild_hourly_counts counts the events anew');
SELECT is_empty('wrong', '... and all is right');
SELECT results_eq('counts', $$VALUES ('a', '02-03 11:00', 2::bigint), ('r', '02-03 10:00', 1)$$, '... and nothing else is left');

SET SESSION AUTHORIZATION service_role;
TRUNCATE public.events;
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', 'nothing', 'TRUNCATE takes the counts too');

-- Attempts to have the owner's triggers do something else.
CREATE TEMP TABLE hourly_counts (LIKE public.hourly_counts INCLUDING ALL);
CREATE TEMP TABLE hourly_count_deltas (LIKE public.hourly_count_deltas);
GRANT ALL ON pg_temp.hourly_counts, pg_temp.hourly_count_deltas TO PUBLIC;
CREATE SCHEMA hijack;
GRANT USAGE ON SCHEMA hijack TO PUBLIC;
CREATE FUNCTION hijack.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
  BEGIN RAISE 'hijacked by %', current_user USING ERRCODE = 'ZZ001'; END $$;
SET search_path = hijack, pg_temp, pg_catalog, public, tap;
SET SESSION AUTHORIZATION service_role;
SELECT lives_ok($$INSERT INTO public.events (id, source, timestamp, event_type, payload)
  VALUES ('evt_safe', 'a', '2026-02-03T10:00:00Z', 'tool', '{}')$$, 'a search_path does not lead the triggers astray');
RESET SESSION AUTHORIZATION;
SELECT is((SELECT count(*) FROM pg_temp.hourly_counts), 0::bigint, 'a temporary table does not catch the counts');
SELECT is((SELECT count(*) FROM public.hourly_counts), 1::bigint, '... they are where they belong');

SELECT * FROM finish();
ROLLBACK;
