-- now() is constant in a transaction, so the start of the window can be tested exactly.
-- find_sources.sql compares random results with those of get_hourly_aggregates.
BEGIN;
SELECT no_plan();

SELECT is(pg_get_function_arguments('public.get_scoped_aggregates'::regproc),
  'days_back integer DEFAULT 7, source_filter text DEFAULT NULL::text, names text[] DEFAULT NULL::text[], prefixes text[] DEFAULT NULL::text[]');
SELECT is(pg_get_function_result('public.get_scoped_aggregates'::regproc), pg_get_function_result('public.get_hourly_aggregates'::regproc),
  'its result has the columns of get_hourly_aggregates');
SELECT is_definer('public', 'get_scoped_aggregates', ARRAY['integer', 'text', 'text[]', 'text[]']);
SELECT volatility_is('public', 'get_scoped_aggregates', ARRAY['integer', 'text', 'text[]', 'text[]'], 'stable');

CREATE TEMP SEQUENCE event_number;
CREATE FUNCTION pg_temp.store(source text, VARIADIC at timestamptz[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || nextval('event_number'), source, at, 'tool', '{}' FROM unnest(at) AS at
$$;

SET SESSION AUTHORIZATION steep_query;
SELECT is_empty($$SELECT * FROM public.get_scoped_aggregates(7, NULL, '{a}', '{b}')$$, 'without events there are no rows');
RESET SESSION AUTHORIZATION;

-- The start of the window, to the microsecond.
SELECT pg_temp.store(source, now() - interval '168 hours', now() - interval '168 hours 1 microsecond')
FROM unnest(ARRAY['a', 'b', 'B', 'c', 'é']) AS source;
SELECT results_eq($$SELECT source, event_count FROM public.get_scoped_aggregates(7, NULL, '{b,é,nobody}', '{B}')$$,
  $$VALUES ('B', 1::bigint), ('b', 1), ('é', 1)$$, 'of the partial hour, the sources of the scope are counted, in byte order');
SELECT is_empty($$SELECT * FROM public.get_scoped_aggregates(7, 'a', '{b}', '{B}')$$, 'another source is like one that does not exist');
SELECT is_empty($$SELECT * FROM public.get_scoped_aggregates(7, NULL, '{}', '{}')$$, 'a scope of nothing sees nothing');
SELECT is_empty($$SELECT * FROM public.get_scoped_aggregates(NULL, NULL, '{b}', '{}')$$, 'days_back NULL returns no rows');
DELETE FROM public.events;

SELECT pg_temp.store(source, '2096-02-03T10:00:00Z', '2096-02-03T23:59:59.999999Z', 'infinity', '-infinity')
FROM unnest(ARRAY['a', 'lab-1', 'B', 'lab', 'lab-2', 'LAB-3']) AS source;
PREPARE counts AS SELECT * FROM public.get_scoped_aggregates(7, NULL, '{a,a}', '{lab-,lab-1}');
CREATE TEMP TABLE hours AS VALUES
  ('a', date 'infinity', NULL::integer, 1::bigint), ('lab-1', 'infinity', NULL, 1), ('lab-2', 'infinity', NULL, 1),
  ('a', '2096-02-03', 23, 1), ('lab-1', '2096-02-03', 23, 1), ('lab-2', '2096-02-03', 23, 1),
  ('a', '2096-02-03', 10, 1), ('lab-1', '2096-02-03', 10, 1), ('lab-2', '2096-02-03', 10, 1);
SELECT results_eq('counts', 'TABLE hours', 'the newest hour comes first, then sources are in byte order');
SET timezone = 'Asia/Kolkata';
SELECT results_eq('counts', 'TABLE hours', '... in a session whose time zone is off by half an hour');
RESET timezone;
SELECT results_eq($$SELECT source, hour FROM public.get_scoped_aggregates(7, 'lab-2', '{a}', '{lab-}') WHERE hour IS NOT NULL$$,
  $$VALUES ('lab-2', 23), ('lab-2', 10)$$, 'source_filter limits the scope to one source');
SELECT results_eq('SELECT * FROM public.get_scoped_aggregates()', 'SELECT * FROM public.get_hourly_aggregates()',
  'without a scope it is get_hourly_aggregates');

-- A few of many sources: the counts of the others must not cost it time.
SELECT pg_temp.store('other-' || i, VARIADIC ARRAY(SELECT now() - h * interval '1 hour' FROM generate_series(1, 20) AS h))
FROM generate_series(1, 100) AS i;
SELECT pg_temp.store('few-' || i, now()) FROM generate_series(1, 3) AS i;
CREATE FUNCTION pg_temp.entries_read() RETURNS bigint LANGUAGE sql AS $$
  SELECT sum(pg_stat_get_xact_tuples_returned(index))::bigint
  FROM unnest(ARRAY['public.hourly_counts_pkey', 'public.idx_hourly_counts_hour']::regclass[]) AS index
$$;
ANALYZE public.hourly_counts;
CREATE TEMP TABLE entries AS SELECT pg_temp.entries_read() AS before;
SELECT is(sum(event_count), 3::numeric, 'three sources of a hundred are counted')
FROM public.get_scoped_aggregates(7, NULL, '{few-1,few-2}', '{few-3}');
SELECT cmp_ok(pg_temp.entries_read() - before, '<', 20::bigint, '... without reading those of the others') FROM entries;

SELECT * FROM finish();
ROLLBACK;
