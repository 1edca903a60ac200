-- now() is constant in a transaction, so the start of the window can be tested exactly.
BEGIN;
SELECT no_plan();

SELECT has_function('public', 'get_hourly_aggregates', ARRAY['integer', 'text']);
SELECT is(pg_get_function_arguments('public.get_hourly_aggregates'::regproc),
  'days_back integer DEFAULT 7, source_filter text DEFAULT NULL::text', 'its parameters have the data model''s names and defaults');
SELECT is(pg_get_function_result('public.get_hourly_aggregates'::regproc),
  'TABLE(source text, date date, hour integer, event_count bigint)');
SELECT is_definer('public', 'get_hourly_aggregates', ARRAY['integer', 'text']);
SELECT volatility_is('public', 'get_hourly_aggregates', ARRAY['integer', 'text'], 'stable');

CREATE TEMP SEQUENCE event_number;
CREATE FUNCTION pg_temp.store(source text, VARIADIC at timestamptz[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || nextval('event_number'), source, at, 'tool', '{}' FROM unnest(at) AS at
$$;
CREATE FUNCTION pg_temp.store(source text, VARIADIC at text[]) RETURNS void LANGUAGE sql AS $$
  SELECT pg_temp.store(source, VARIADIC at::timestamptz[])
$$;

SET SESSION AUTHORIZATION steep_query;
SELECT is_empty('SELECT * FROM public.get_hourly_aggregates()', 'without events there are no rows');
RESET SESSION AUTHORIZATION;

-- The start of the window, to the microsecond.
SELECT pg_temp.store('edge', now() - interval '168 hours', now() - interval '168 hours 1 microsecond');
SELECT is(sum(event_count), 1::numeric, 'an event 7 days old is counted, one a microsecond older is not')
FROM public.get_hourly_aggregates();
SELECT is(sum(event_count), 2::numeric, 'both are within 30 days') FROM public.get_hourly_aggregates(30);
SELECT is(sum(event_count), 2::numeric, 'parameters can be named') FROM public.get_hourly_aggregates(days_back => 8);
SELECT is_empty('SELECT * FROM public.get_hourly_aggregates(NULL)', 'days_back NULL returns no rows');
SELECT pg_temp.store('future', now(), now() + interval '1 microsecond', now() + interval '400 days');
SELECT is(sum(event_count), 3::numeric, 'future events are counted')
FROM public.get_hourly_aggregates(7, 'future');
SELECT is(sum(event_count), 3::numeric, '... even with days_back 0') FROM public.get_hourly_aggregates(0);
DELETE FROM public.events;

-- Hours of UTC, far in the future and so in every window.
SELECT pg_temp.store('m', '2096-02-03T10:00:00Z', '2096-02-03T10:15:00Z', '2096-02-03T10:45:00Z',
  '2096-02-03T10:59:59.999999Z', '2096-02-03T11:00:00Z', '2096-02-03T23:59:00Z', '2096-02-04T00:00:00Z',
  '2096-02-04T05:30:00+05:30');
CREATE TEMP TABLE hours AS VALUES
  ('m', date '2096-02-04', 0, 2::bigint), ('m', '2096-02-03', 23, 1), ('m', '2096-02-03', 11, 1), ('m', '2096-02-03', 10, 4);
PREPARE aggregates AS SELECT * FROM public.get_hourly_aggregates();
SELECT results_eq('aggregates', 'TABLE hours', 'events are counted by UTC hour, the newest first');
SET timezone = 'Asia/Kolkata';
SELECT results_eq('aggregates', 'TABLE hours', '... in a session whose time zone is off by half an hour');
SET timezone = 'Pacific/Kiritimati';
SELECT results_eq('aggregates', 'TABLE hours', '... or a day ahead');
SET datestyle = 'SQL, DMY';
SELECT results_eq('aggregates', 'TABLE hours', '... or that has another DateStyle');
RESET timezone;
RESET datestyle;
DELETE FROM public.events;

-- The hour that occurred twice in Berlin last October.
CREATE FUNCTION pg_temp.fall_back() RETURNS timestamptz LANGUAGE sql AS $$
  SELECT max(day) + interval '30 minutes'
  FROM generate_series(date_trunc('day', now(), 'UTC') - interval '366 days', now(), interval '24 hours') AS day
  WHERE extract(hour FROM day AT TIME ZONE 'Europe/Berlin') = 2
    AND extract(hour FROM (day + interval '24 hours') AT TIME ZONE 'Europe/Berlin') = 1
$$;
SET timezone = 'Europe/Berlin';
SELECT pg_temp.store('m', pg_temp.fall_back(), pg_temp.fall_back() + interval '1 hour');
SELECT results_eq('SELECT hour, event_count FROM public.get_hourly_aggregates(400)',
  'VALUES (1, 1::bigint), (0, 1)', 'an hour that occurs twice in the session''s time zone is two UTC hours');
DELETE FROM public.events;

-- The number of days back to Berlin's last change of clocks.
CREATE FUNCTION pg_temp.days_over_a_change() RETURNS integer LANGUAGE sql AS $$
  SELECT min(n) FROM generate_series(1, 366) AS n
  WHERE extract(timezone FROM now()) <> extract(timezone FROM now() - n * interval '24 hours')
$$;
SELECT isnt(now() - pg_temp.days_over_a_change() * interval '1 day',
  now() - pg_temp.days_over_a_change() * interval '24 hours', 'in Berlin a day is not always 24 hours');
SELECT pg_temp.store('m', now() - pg_temp.days_over_a_change() * interval '24 hours',
  now() - pg_temp.days_over_a_change() * interval '24 hours' - interval '1 microsecond');
SELECT is(sum(event_count), 1::numeric, 'a day of the window has 24 hours, across a change of clocks too')
FROM public.get_hourly_aggregates(pg_temp.days_over_a_change());
RESET timezone;
DELETE FROM public.events;

-- Sources: counted separately, in byte order; one alone.
SELECT pg_temp.store(source, '2096-02-03T10:00:00Z', '2096-02-03T11:00:00Z')
FROM unnest(ARRAY['b', 'B', 'a', 'é', 'a b', 'b%', '_']) AS source;
SELECT results_eq('SELECT source, hour FROM public.get_hourly_aggregates()', $$VALUES
  ('B', 11), ('_', 11), ('a', 11), ('a b', 11), ('b', 11), ('b%', 11), ('é', 11),
  ('B', 10), ('_', 10), ('a', 10), ('a b', 10), ('b', 10), ('b%', 10), ('é', 10)
$$, 'within an hour, sources are in byte order');
SELECT results_eq($$SELECT source, hour FROM public.get_hourly_aggregates(7, 'b')$$, $$VALUES ('b', 11), ('b', 10)$$,
  'source_filter is compared exactly');
SELECT results_eq($$SELECT source, hour FROM public.get_hourly_aggregates(source_filter => 'b%')$$,
  $$VALUES ('b%', 11), ('b%', 10)$$, '... and is not a pattern');
SELECT is_empty($$SELECT * FROM public.get_hourly_aggregates(7, '')$$, 'an empty source_filter matches nothing');
SELECT is_empty($$SELECT * FROM public.get_hourly_aggregates(7, 'nobody')$$, 'nor does an unknown one');

SELECT pg_temp.store('m' || i % 7, now() - i * interval '7 minutes') FROM generate_series(0, 5000) AS i;
SELECT results_eq($$SELECT * FROM public.get_hourly_aggregates(9)$$, $$
  SELECT e.source COLLATE "default", date(e.timestamp AT TIME ZONE 'UTC') AS date,
    extract(hour FROM e.timestamp AT TIME ZONE 'UTC')::integer AS hour, count(*)::bigint
  FROM public.events AS e
  WHERE e.timestamp >= now() - interval '216 hours'
  GROUP BY e.source, date(e.timestamp AT TIME ZONE 'UTC'), extract(hour FROM e.timestamp AT TIME ZONE 'UTC')
  ORDER BY date DESC, hour DESC, e.source COLLATE "C"
$$, 'the data model''s own query gives the same result');

-- Attempts to make the definer function call or read something else.
CREATE TEMP TABLE before_hijack AS SELECT * FROM public.get_hourly_aggregates(9);
GRANT SELECT ON before_hijack TO PUBLIC;
CREATE TEMP TABLE events (LIKE public.events INCLUDING ALL);
GRANT ALL ON pg_temp.events TO PUBLIC;
INSERT INTO pg_temp.events VALUES ('evt_x', 'hijacked', now(), 'tool', '{}');
CREATE SCHEMA hijack;
GRANT USAGE ON SCHEMA hijack TO PUBLIC;
CREATE FUNCTION hijack.now() RETURNS timestamptz LANGUAGE sql RETURN timestamptz '1970-01-01';
CREATE FUNCTION hijack.date_trunc(text, timestamp) RETURNS timestamp LANGUAGE sql RETURN timestamp '1970-01-01';
SET search_path = hijack, pg_temp, pg_catalog, public, tap;
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT * FROM public.get_hourly_aggregates(9)', 'TABLE before_hijack',
  'neither the caller''s search_path nor a temporary table has an effect');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
