-- now() is constant in a transaction, so the start of the window can be tested exactly.
BEGIN;
SELECT no_plan();

SELECT is(pg_get_function_arguments('public.get_hourly_totals'::regproc),
  'days_back integer DEFAULT 7, source_filter text DEFAULT NULL::text, names text[] DEFAULT NULL::text[], prefixes text[] DEFAULT NULL::text[]');
SELECT is(pg_get_function_result('public.get_hourly_totals'::regproc), 'TABLE(date date, hour integer, event_count bigint)');
SELECT is_definer('public', 'get_hourly_totals', ARRAY['integer', 'text', 'text[]', 'text[]']);
SELECT volatility_is('public', 'get_hourly_totals', ARRAY['integer', 'text', 'text[]', 'text[]'], 'stable');

CREATE TEMP SEQUENCE event_number;
CREATE FUNCTION pg_temp.store(source text, VARIADIC at timestamptz[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || nextval('event_number'), source, at, 'tool', '{}' FROM unnest(at) AS at
$$;

SET SESSION AUTHORIZATION steep_query;
SELECT is_empty('SELECT * FROM public.get_hourly_totals()', 'without events there are no rows');
RESET SESSION AUTHORIZATION;

-- The start of the window, to the microsecond.
SELECT pg_temp.store(source, now() - interval '168 hours', now() - interval '168 hours 1 microsecond')
FROM unnest(ARRAY['a', 'b']) AS source;
SELECT results_eq('SELECT event_count FROM public.get_hourly_totals()', 'VALUES (2::bigint)',
  'events 7 days old are summed, those a microsecond older are not');
SELECT is(sum(event_count), 4::numeric, 'all are within 8 days') FROM public.get_hourly_totals(8);
SELECT is_empty('SELECT * FROM public.get_hourly_totals(NULL)', 'days_back NULL returns no rows');
DELETE FROM public.events;

SELECT pg_temp.store(source, '2096-02-03T10:00:00Z', '2096-02-03T23:59:59.999999Z', '2096-02-04T05:30:00+05:30', 'infinity', '-infinity')
FROM unnest(ARRAY['a', 'B', 'é']) AS source;
SELECT pg_temp.store('c', '2096-02-03T10:59:59.999999Z');
CREATE TEMP TABLE hours AS VALUES
  (date 'infinity', NULL::integer, 3::bigint), ('2096-02-04', 0, 3), ('2096-02-03', 23, 3), ('2096-02-03', 10, 4);
PREPARE totals AS SELECT * FROM public.get_hourly_totals();
SELECT results_eq('totals', 'TABLE hours', 'the events of all sources are summed by UTC hour, the newest first; infinity is an hour');
SET timezone = 'Asia/Kolkata';
SELECT results_eq('totals', 'TABLE hours', '... in a session whose time zone is off by half an hour');
RESET timezone;
SELECT results_eq($$SELECT * FROM public.get_hourly_totals(7, 'c')$$, $$VALUES (date '2096-02-03', 10, 1::bigint)$$,
  'source_filter limits them to one source');
SELECT is_empty($$SELECT * FROM public.get_hourly_totals(7, 'nobody')$$, 'an unknown source has no rows');
SELECT is_empty($$SELECT * FROM public.get_hourly_totals(7, '')$$, '... nor has an empty one');
SELECT results_eq($$SELECT * FROM public.get_hourly_totals(7, NULL, '{a, c, a}', '{B}')$$,
  $$VALUES (date 'infinity', NULL::integer, 2::bigint), ('2096-02-04', 0, 2), ('2096-02-03', 23, 2), ('2096-02-03', 10, 3)$$,
  'names and prefixes limit them to some');

-- The page asks for one source: the other events of the partial hour must not cost it time.
SELECT pg_temp.store('other', VARIADIC array_fill(now() - interval '168 hours', ARRAY[1000]));
SELECT pg_temp.store('one', now() - interval '168 hours', now());
CREATE FUNCTION pg_temp.entries_read() RETURNS bigint LANGUAGE sql AS $$
  SELECT pg_stat_get_xact_tuples_returned('public.idx_events_timestamp'::regclass)
$$;
CREATE TEMP TABLE entries AS SELECT pg_temp.entries_read() AS before;
SELECT is(sum(event_count), 2::numeric, 'one source is counted') FROM public.get_hourly_totals(7, 'one');
SELECT is(sum(event_count), 2::numeric, '... also in its total') FROM public.get_source_totals(7, 'one');
SELECT cmp_ok(pg_temp.entries_read() - before, '<', 10::bigint, '... without reading those of the others') FROM entries;

-- A sum of two counts that are each as large as can be is an error, not a wrong number.
UPDATE public.hourly_counts SET event_count = 9223372036854775807 WHERE hour = '2096-02-04T00:00:00Z' AND source IN ('a', 'B');
SELECT throws_ok('totals', '22003', NULL, 'a sum beyond bigint is refused');

SELECT * FROM finish();
ROLLBACK;
