-- now() is constant in a transaction, so the start of the window can be tested exactly.
BEGIN;
SELECT no_plan();

SELECT is(pg_get_function_arguments('public.get_source_totals'::regproc),
  'days_back integer DEFAULT 7, source_filter text DEFAULT NULL::text, names text[] DEFAULT NULL::text[], prefixes text[] DEFAULT NULL::text[]');
SELECT is(pg_get_function_result('public.get_source_totals'::regproc), 'TABLE(source text, event_count bigint)');
SELECT is_definer('public', 'get_source_totals', ARRAY['integer', 'text', 'text[]', 'text[]']);
SELECT volatility_is('public', 'get_source_totals', ARRAY['integer', 'text', 'text[]', 'text[]'], 'stable');

CREATE TEMP SEQUENCE event_number;
CREATE FUNCTION pg_temp.store(source text, VARIADIC at timestamptz[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || nextval('event_number'), source, at, 'tool', '{}' FROM unnest(at) AS at
$$;

SET SESSION AUTHORIZATION steep_query;
SELECT is_empty('SELECT * FROM public.get_source_totals()', 'without events there are no rows');
RESET SESSION AUTHORIZATION;

-- The start of the window, to the microsecond.
SELECT pg_temp.store('edge', now() - interval '168 hours', now() - interval '168 hours 1 microsecond');
SELECT pg_temp.store('old', now() - interval '168 hours 1 microsecond');
SELECT results_eq('SELECT * FROM public.get_source_totals()', $$VALUES ('edge', 1::bigint)$$,
  'an event 7 days old is counted, one a microsecond older is not');
SELECT results_eq('SELECT * FROM public.get_source_totals(8)', $$VALUES ('edge', 2::bigint), ('old', 1)$$,
  'all are within 8 days');
SELECT is_empty('SELECT * FROM public.get_source_totals(NULL)', 'days_back NULL returns no rows');
DELETE FROM public.events;

-- In the partial hour, later hours, the future and at infinity.
SELECT pg_temp.store(source, now() - interval '168 hours', now() - interval '100 hours', now() + interval '400 days', 'infinity', '-infinity')
FROM unnest(ARRAY['b', 'B', 'a', 'é', 'a b', 'b%', '_']) AS source;
SELECT pg_temp.store('few', now());
SELECT pg_temp.store('many', VARIADIC array_fill(now() - interval '1 hour', ARRAY[5]));
SELECT results_eq('SELECT * FROM public.get_source_totals()', $$VALUES ('many', 5::bigint),
  ('B', 4), ('_', 4), ('a', 4), ('a b', 4), ('b', 4), ('b%', 4), ('é', 4), ('few', 1)
$$, 'most events come first, then sources are in byte order');
SELECT results_eq($$SELECT * FROM public.get_source_totals(7, 'b%')$$, $$VALUES ('b%', 4::bigint)$$,
  'source_filter is compared exactly');
SELECT is_empty($$SELECT * FROM public.get_source_totals(7, 'nobody')$$, 'an unknown source has no row');
SELECT is_empty($$SELECT * FROM public.get_source_totals(7, '')$$, '... nor has an empty one');
SELECT results_eq($$SELECT * FROM public.get_source_totals(7, NULL, '{few, nobody}', '{m}')$$,
  $$VALUES ('many', 5::bigint), ('few', 1)$$, 'names and prefixes limit them to some');

-- Attempts to make the definer function call or read something else.
CREATE TEMP TABLE before_hijack AS SELECT * FROM public.get_source_totals(9);
CREATE TEMP TABLE hours_before_hijack AS SELECT * FROM public.get_hourly_totals(9, NULL, NULL, '{b,m}');
GRANT SELECT ON before_hijack, hours_before_hijack TO PUBLIC;
CREATE TEMP TABLE events (LIKE public.events INCLUDING ALL);
CREATE TEMP TABLE hourly_counts (LIKE public.hourly_counts INCLUDING ALL);
GRANT ALL ON pg_temp.events, pg_temp.hourly_counts TO PUBLIC;
INSERT INTO pg_temp.events VALUES ('evt_x', 'hijacked', now() - interval '216 hours', 'tool', '{}');
INSERT INTO pg_temp.hourly_counts VALUES ('hijacked', date_trunc('hour', now()), 1);
CREATE SCHEMA hijack;
GRANT USAGE ON SCHEMA hijack TO PUBLIC;
CREATE FUNCTION hijack.now() RETURNS timestamptz LANGUAGE sql RETURN timestamptz '1970-01-01';
CREATE FUNCTION hijack.starts_with(text, text) RETURNS boolean LANGUAGE sql RETURN true;
SET search_path = hijack, pg_temp, pg_catalog, public, tap;
SET SESSION AUTHORIZATION steep_query;
SELECT results_eq('SELECT * FROM public.get_source_totals(9)', 'TABLE before_hijack',
  'neither the caller''s search_path nor a temporary table has an effect');
SELECT results_eq($$SELECT * FROM public.get_hourly_totals(9, NULL, NULL, '{b,m}')$$, 'TABLE hours_before_hijack',
  '... nor on get_hourly_totals');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
