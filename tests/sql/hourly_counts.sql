-- The hourly counts and the triggers that keep them.
BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'hourly_counts', ARRAY['source', 'hour', 'event_count', 'date', 'hour_of_day']);
SELECT col_is_pk('public', 'hourly_counts', ARRAY['source', 'hour'], 'a source''s hour is unique in hourly_counts');
SELECT triggers_are('public', 'events', ARRAY['count_inserted', 'count_updated', 'count_deleted', 'truncate_counts']);
SELECT indexes_are('public', 'hourly_counts', ARRAY['hourly_counts_pkey', 'idx_hourly_counts_hour']);

CREATE TEMP VIEW our_functions (name, parameters) AS VALUES ('count_inserted_events', ARRAY[]::text[]),
  ('count_updated_events', '{}'), ('count_deleted_events', '{}'), ('truncate_hourly_counts', '{}'),
  ('check_hourly_counts', ARRAY['timestamp with time zone', 'timestamp with time zone']), ('rebuild_hourly_counts', '{}'),
  ('change_hourly_counts', ARRAY['text[]', 'timestamp with time zone[]', 'bigint[]']);
SELECT is_definer('public', name::name, parameters::name[]) FROM our_functions;

CREATE FUNCTION pg_temp.counts() RETURNS TABLE (source text, hour text, event_count bigint) LANGUAGE sql AS $$
  SELECT source, to_char(hour AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), event_count FROM public.hourly_counts ORDER BY 1, 2
$$;
PREPARE counts AS SELECT * FROM pg_temp.counts();
PREPARE wrong AS SELECT * FROM public.check_hourly_counts();
PREPARE nothing AS SELECT '', '', 0::bigint WHERE false;

-- As the two roles that store events; neither has privileges on the counts.
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
SELECT is(inserted_count, 1::bigint, 'a batch with duplicates is stored') FROM public.bulk_insert_events('[
  {"id": "evt_5", "source": "a", "timestamp": "2026-02-03T10:01:00Z", "type": "tool", "payload": {}},
  {"id": "evt_5", "source": "a", "timestamp": "2026-02-03T12:01:00Z", "type": "tool", "payload": {}},
  {"id": "evt_4", "source": "a", "timestamp": "2026-02-03T12:01:00Z", "type": "tool", "payload": {}}]');
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 10:00', 1::bigint), ('a', '02-03 10:00', 3), ('a', '02-03 11:00', 1)$$,
  '... and its duplicates are not counted');
SELECT throws_ok($$INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_6', 'a', now(), 'tool', '{}'), ('evt_1', 'a', now(), 'tool', '{}')$$, '23505', NULL, 'an INSERT that fails counts nothing');
INSERT INTO public.events SELECT * FROM public.events WHERE false;
SELECT is((SELECT sum(event_count) FROM pg_temp.counts()), 5::numeric, '... nor does one that inserts nothing');
SELECT lives_ok($$INSERT INTO public.events (id, source, timestamp, event_type, payload)
  VALUES ('evt_4', 'B', now(), 'error', '{}'), ('evt_7', 'c', '2026-02-03T09:00:00Z', 'tool', '{}')
  ON CONFLICT (id) DO UPDATE SET event_type = excluded.event_type, timestamp = '2026-02-03T08:00:00Z'$$, 'an upsert is accepted');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 10:00', 3), ('a', '02-03 11:00', 1),
  ('c', '02-03 09:00', 1)$$, '... counts inserted events and moves updated ones');

SET SESSION AUTHORIZATION service_role;
UPDATE public.events SET payload = '{"a": 1}', timestamp = timestamp + interval '1 microsecond' WHERE id = 'evt_1';
RESET SESSION AUTHORIZATION;
CREATE TEMP TABLE before_update AS SELECT ctid AS place FROM public.hourly_counts;
UPDATE public.events SET payload = '{"a": 2}', event_type = 'error';
SELECT results_eq('SELECT ctid FROM public.hourly_counts', 'TABLE before_update', 'an UPDATE that moves no event writes no count');
SET SESSION AUTHORIZATION service_role;
UPDATE public.events SET timestamp = timestamp + interval '1 hour' WHERE source = 'a';
UPDATE public.events SET source = 'd' WHERE id = 'evt_7';
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 3), ('a', '02-03 12:00', 1),
  ('d', '02-03 09:00', 1)$$, 'an UPDATE of timestamp or source moves the counts');

SET SESSION AUTHORIZATION service_role;
DELETE FROM public.events WHERE id IN ('evt_2', 'evt_3', 'evt_7', 'evt_none');
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 2)$$,
  'a DELETE subtracts, and a count of 0 is deleted');
DELETE FROM public.events WHERE id = 'evt_none';
SAVEPOINT before_deletion;
DELETE FROM public.events;
SELECT results_eq('counts', 'nothing', '... down to the last');
ROLLBACK TO before_deletion;
SELECT is_empty('wrong', 'a rollback restores the counts');

INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_8', 'z', 'infinity', 'tool', '{}'), ('evt_9', 'z', '-infinity', 'tool', '{}'),
  ('evt_bc', 'z', '4713-01-01 00:30:00+00 BC', 'tool', '{}'), ('evt_ad', 'z', '294276-12-31 23:59:59+00', 'tool', '{}');
SELECT is((SELECT count(*) FROM pg_temp.counts() WHERE source = 'z'), 4::bigint, 'infinite and extreme timestamps are counted');
SELECT results_eq($$SELECT date::text, hour, event_count FROM public.get_hourly_aggregates(7, 'z')$$,
  $$VALUES ('infinity', NULL::integer, 1::bigint), ('294276-12-31', 23, 1)$$, '... and returned as by the data model''s query');
DELETE FROM public.events WHERE source = 'z';
SELECT is_empty($$SELECT * FROM pg_temp.counts() WHERE source = 'z'$$, '... and deleted with them');

-- Several sources and hours in one statement.
CREATE FUNCTION pg_temp.add_events() RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_n' || i, CASE WHEN i < 6 THEN 'a' WHEN i < 9 THEN 'c' ELSE 'd' END, '2026-02-03T11:30:00Z', 'tool', '{}'
  FROM generate_series(1, 9) AS i;
$$;
SAVEPOINT before_events;
SELECT pg_temp.add_events();
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 7), ('c', '02-03 11:00', 3), ('d', '02-03 11:00', 1)$$,
  'an INSERT adds to counts that exist, and creates others');
SELECT is_empty('wrong', '... and the counts are correct');
SELECT results_eq('SELECT source, hour, event_count FROM public.get_hourly_aggregates(36500)',
  $$VALUES ('a', 11, 7::bigint), ('c', 11, 3), ('d', 11, 1), ('B', 8, 1)$$, 'get_hourly_aggregates returns them, for all sources');
SELECT results_eq($$SELECT date, hour, event_count FROM public.get_hourly_aggregates(36500, 'a')$$,
  $$VALUES ('2026-02-03'::date, 11, 7::bigint)$$, '... and for one');
SELECT is(public.rebuild_hourly_counts(), 12::bigint, 'rebuild_hourly_counts counts all events');
SELECT is_empty('wrong', '... and the counts are correct');

INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_f1', 'd', '2026-02-03T11:00:00Z', 'tool', '{}'), ('evt_f2', 'd', '2026-02-03T12:00:00Z', 'tool', '{}');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 7), ('c', '02-03 11:00', 3), ('d', '02-03 11:00', 2),
  ('d', '02-03 12:00', 1)$$, 'an INSERT keeps the other counts');
SELECT is_empty('wrong', '... and the counts are correct');

ROLLBACK TO before_events;
SELECT pg_temp.add_events();
DELETE FROM public.events WHERE id IN ('evt_n1', 'evt_n2', 'evt_n3', 'evt_n4', 'evt_n6');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 3), ('c', '02-03 11:00', 2), ('d', '02-03 11:00', 1)$$,
  'a DELETE subtracts from several counts');
SELECT is_empty('wrong', '... and the counts are correct');
DELETE FROM public.events WHERE source IN ('a', 'c');
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('d', '02-03 11:00', 1)$$, 'a DELETE of all events of a source leaves no counts');

ROLLBACK TO before_events;
SELECT pg_temp.add_events();
UPDATE public.events SET source = 'd' WHERE source IN ('a', 'c') AND id LIKE 'evt\_n%' AND id <> 'evt_n1';
SELECT results_eq('counts', $$VALUES ('B', '02-03 08:00', 1::bigint), ('a', '02-03 11:00', 3), ('d', '02-03 11:00', 8)$$,
  'an UPDATE of several sources moves their counts');
UPDATE public.events SET source = 'a' WHERE source = 'd';
SELECT is_empty('wrong', '... and the counts are correct');

ROLLBACK TO before_events;
SELECT pg_temp.add_events();
UPDATE public.hourly_counts SET event_count = event_count - 3 WHERE source = 'a' AND hour = '2026-02-03T11:00:00Z';
SELECT results_eq('wrong', $$VALUES ('a', '2026-02-03T11:00:00Z'::timestamptz, 7::bigint, 4::bigint)$$, 'check_hourly_counts finds a wrong count');
SELECT throws_ok($$DELETE FROM public.events WHERE source = 'a'$$, 'XX001', NULL, '... and it does not fall below 0');
ROLLBACK TO before_events;

-- Changes that bypass the triggers.
SET session_replication_role = replica;
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_r', 'r', '2026-02-03T10:00:00Z', 'tool', '{}');
DELETE FROM public.events WHERE source = 'B';
RESET session_replication_role;
SELECT results_eq('wrong', $$VALUES ('B', '2026-02-03T08:00:00Z'::timestamptz, 0::bigint, 1::bigint),
  ('r', '2026-02-03T10:00:00Z', 1, 0)$$, 'check_hourly_counts finds them');
SELECT results_eq($$SELECT source FROM public.check_hourly_counts('2026-02-03T08:00:00Z', '2026-02-03T10:00:00Z')$$,
  $$VALUES ('B')$$, '... from the first hour, and before the last');
SELECT results_eq($$SELECT source FROM public.check_hourly_counts('2026-02-03T10:00:00Z')$$, $$VALUES ('r')$$, '... or until the end');
SELECT is_empty($$SELECT * FROM public.check_hourly_counts('2026-02-03T09:00:00Z', '2026-02-03T10:00:00Z')$$, '... and none elsewhere');
SELECT throws_ok($$DELETE FROM public.events WHERE id = 'evt_r'$$, 'XX001', NULL, 'no count falls below 0');
SELECT throws_ok($$UPDATE public.events SET source = 'q' WHERE id = 'evt_r'$$, 'XX001', NULL, '... nor by an UPDATE');
SELECT is(public.rebuild_hourly_counts(), 3::bigint, 'rebuild_hourly_counts counts all events again');
SELECT is_empty('wrong', '... and the counts are correct');
SELECT results_eq('counts', $$VALUES ('a', '02-03 11:00', 2::bigint), ('r', '02-03 10:00', 1)$$, '... and there are no others');

SET session_replication_role = replica;
INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_end_' || n, 'a', end_of_time, 'tool', '{}'
FROM unnest(ARRAY['-infinity', '-infinity', 'infinity', '4713-01-01 00:00 BC', '294276-12-31 23:59:59.999999Z']::timestamptz[])
  WITH ORDINALITY AS ends (end_of_time, n);
RESET session_replication_role;
SELECT is(public.rebuild_hourly_counts(), 8::bigint, 'rebuild_hourly_counts counts the ends of time');
SELECT is_empty('wrong', '... and the counts are correct');
DELETE FROM public.events WHERE id LIKE 'evt\_end\_%';
SELECT is_empty('wrong', '... also after they are deleted');

SET SESSION AUTHORIZATION service_role;
TRUNCATE public.events;
RESET SESSION AUTHORIZATION;
SELECT results_eq('counts', 'nothing', 'TRUNCATE empties the counts');

-- Attempts to make the triggers call or write something else.
CREATE TEMP TABLE hourly_counts (LIKE public.hourly_counts INCLUDING ALL);
GRANT ALL ON pg_temp.hourly_counts TO PUBLIC;
CREATE SCHEMA hijack;
GRANT USAGE ON SCHEMA hijack TO PUBLIC;
CREATE FUNCTION hijack.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
  BEGIN RAISE 'hijacked by %', current_user USING ERRCODE = 'ZZ001'; END $$;
SET search_path = hijack, pg_temp, pg_catalog, public, tap;
SET SESSION AUTHORIZATION service_role;
SELECT lives_ok($$INSERT INTO public.events (id, source, timestamp, event_type, payload)
  VALUES ('evt_safe', 'a', '2026-02-03T10:00:00Z', 'tool', '{}')$$, 'the caller''s search_path has no effect');
RESET SESSION AUTHORIZATION;
SELECT is((SELECT count(*) FROM pg_temp.hourly_counts), 0::bigint, 'a temporary table of the same name gets no counts');
SELECT is((SELECT count(*) FROM public.hourly_counts), 1::bigint, '... they are in the real table');

SELECT * FROM finish();
ROLLBACK;
