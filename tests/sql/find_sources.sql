-- Which sources names and prefixes allow; and that get_scoped_aggregates and the totals are the
-- rows of get_hourly_aggregates over these, and their sums, for random events, windows and limits.
BEGIN;
SELECT no_plan();

-- Names as a pattern, a collation or a range of strings would confuse them.
CREATE TEMP TABLE stored (source) AS VALUES
  ('a'), ('ab'), ('abc'), ('ac'), ('b'), ('A'), ('B'), ('a%'), ('a_'), ('a%b'), ('%'), ('_'), ('a b'), ('a''b'), ('a\'),
  ('z'), ('é'), ('éa'), ('e'), (U&'a\+10FFFF'), (U&'a\+10FFFFb'), (U&'\+10FFFF'), (' ');
INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_' || source, source, now(), 'tool', '{}' FROM stored;

CREATE FUNCTION pg_temp.found(source_filter text, names text[], prefixes text[]) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT source FROM unnest(public.find_sources(source_filter, names, prefixes)) AS source ORDER BY source COLLATE "C"
$$;
SELECT is(public.find_sources(NULL, NULL, NULL), NULL, 'without names and prefixes there is no limit');
SELECT is(public.find_sources('x', NULL, NULL), '{x}', '... but source_filter');
SELECT is(public.find_sources('', NULL, NULL), ARRAY[''], '... even an empty one');
SELECT is(public.find_sources(NULL, '{}', NULL), '{}', 'no name and no prefix is no source');
SELECT is(public.find_sources(NULL, NULL, '{}'), '{}', '... whichever is NULL');
SELECT is(public.find_sources(NULL, '{}', '{}'), '{}', '... or none is');
SELECT is(public.find_sources('a', '{}', '{}'), '{}', '... nor does source_filter change that');
SELECT results_eq($$SELECT pg_temp.found(NULL, '{a,a,nobody}', NULL)$$, $$VALUES ('a'), ('nobody')$$, 'a name is a source once');
SELECT results_eq($$SELECT pg_temp.found(NULL, '{a}', '{ab,a%,abc}')$$, $$VALUES ('a'), ('a%'), ('a%b'), ('ab'), ('abc')$$,
  'a prefix is found byte by byte; % is itself, and a source in two prefixes is found once');
SELECT results_eq($$SELECT pg_temp.found(NULL, NULL, '{_}')$$, $$VALUES ('_')$$, '_ is itself');
SELECT results_eq($$SELECT pg_temp.found(NULL, NULL, '{a\\}')$$, $$VALUES ('a\')$$, 'a backslash is itself');
SELECT results_eq($$SELECT pg_temp.found(NULL, NULL, '{A}')$$, $$VALUES ('A')$$, 'upper case is not lower case');
SELECT results_eq($$SELECT pg_temp.found(NULL, NULL, ARRAY[U&'a\+10FFFF'])$$, $$VALUES (U&'a\+10FFFF'), (U&'a\+10FFFFb')$$,
  'the last code point can end a prefix');
SELECT is((SELECT count(*) FROM pg_temp.found(NULL, NULL, '{""}')), (SELECT count(*) FROM stored), 'an empty prefix allows every source');
SELECT results_eq($$SELECT pg_temp.found(NULL, '{b,NULL}', '{NULL,z}')$$, $$VALUES ('b'), ('z'), (NULL)$$, 'NULL among them allows nothing');
SELECT is(public.find_sources('b', '{b,NULL}', '{NULL}'), '{b}', '... and hides nothing');
SELECT is(public.find_sources('c', '{b,NULL}', '{NULL}'), '{}');
SELECT is(public.find_sources('abc', '{x}', '{ab}'), '{abc}', 'source_filter may begin with a prefix');
SELECT is(public.find_sources('ab', '{x}', '{abc}'), '{}', '... but not a prefix with source_filter');
SELECT is(public.find_sources('a%', NULL, '{a_}'), '{}');
SELECT is_empty($$
  SELECT prefix, source FROM stored CROSS JOIN (SELECT source FROM stored) AS prefixes (prefix)
  WHERE starts_with(source, prefix) <> (source = ANY (public.find_sources(NULL, NULL, ARRAY[prefix])))
    OR starts_with(source, prefix) <> (public.find_sources(source, '{}', ARRAY[prefix]) = ARRAY[source])
$$, 'every source is found by every prefix that it begins with, and by no other');

-- The totals, beside sums of get_hourly_aggregates. Most instants are about the edges of the
-- windows of 0, 1 and 7 days.
SELECT setseed(0.16);
INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_r' || i, (SELECT source FROM stored ORDER BY random() + i * 0 LIMIT 1),
  CASE i % 4
    WHEN 0 THEN now() - random() * interval '10 days'
    WHEN 1 THEN now() - (ARRAY[0, 1, 7])[1 + i % 3] * interval '24 hours' + (random() - 0.5) * interval '2 hours'
    WHEN 2 THEN date_trunc('hour', now() - (ARRAY[0, 1, 7])[1 + i % 3] * interval '24 hours')
      + (i % 5 - 2) * interval '1 microsecond' + (i / 4 % 2) * interval '1 hour'
    ELSE now() - (ARRAY[0, 1, 7])[1 + i % 3] * interval '24 hours' + (i % 3 - 1) * interval '1 microsecond'
  END, 'tool', '{}'
FROM generate_series(1, 4000) AS i;
INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_i' || at || source, source, at::timestamptz, 'tool', '{}'
FROM stored CROSS JOIN unnest(ARRAY['infinity', '-infinity', '294276-12-31 23:59:59+00']) AS at
WHERE source < 'b';

CREATE TEMP TABLE limits (names text[], prefixes text[]);
INSERT INTO limits VALUES (NULL, NULL), ('{}', '{}'), ('{a,b,nobody}', NULL), (NULL, '{a}'), ('{a,ab,z}', '{ab,a,é}'), (NULL, '{""}'), ('{NULL,b}', '{NULL}');
INSERT INTO limits
SELECT CASE WHEN i % 3 > 0 THEN ARRAY(SELECT source FROM stored WHERE random() + i * 0 < 0.3) END,
  CASE WHEN i % 3 < 2 THEN ARRAY(SELECT left(source, 1 + (random() + i * 0)::integer) FROM stored WHERE random() < 0.1) END
FROM generate_series(1, 20) AS i;

CREATE FUNCTION pg_temp.allowed(source text, names text[], prefixes text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT names IS NULL AND prefixes IS NULL
    OR coalesce(source = ANY (names), false) OR coalesce((SELECT bool_or(starts_with(source, prefix)) FROM unnest(prefixes) AS prefix), false)
$$;
-- Every window, filter and limit, and what its totals should be.
CREATE TEMP TABLE asked AS
  SELECT * FROM (VALUES (0), (1), (7), (9), (NULL)) AS windows (days)
  CROSS JOIN (VALUES (NULL), ('a'), ('ab'), ('nobody'), ('')) AS filters (filter)
  CROSS JOIN (SELECT row_number() OVER () AS number, names, prefixes FROM limits) AS limits;
PREPARE wrong_counts AS
  SELECT days, filter, names, prefixes FROM asked
  WHERE ARRAY(SELECT count FROM public.get_scoped_aggregates(days, filter, names, prefixes) AS count)
    IS DISTINCT FROM ARRAY(
      SELECT ROW(source, date, hour, event_count)
      FROM public.get_hourly_aggregates(days, filter) WITH ORDINALITY AS count (source, date, hour, event_count, number)
      WHERE pg_temp.allowed(count.source, names, prefixes)
      ORDER BY number);
PREPARE wrong_hours AS
  SELECT days, filter, names, prefixes FROM asked
  WHERE ARRAY(SELECT total FROM public.get_hourly_totals(days, filter, names, prefixes) AS total)
    IS DISTINCT FROM ARRAY(
      SELECT ROW(date, hour, sum(event_count)::bigint) FROM public.get_hourly_aggregates(days, filter) AS count
      WHERE pg_temp.allowed(count.source, names, prefixes)
      GROUP BY date, hour ORDER BY date DESC, hour DESC NULLS FIRST);
PREPARE wrong_sources AS
  SELECT days, filter, names, prefixes FROM asked
  WHERE ARRAY(SELECT total FROM public.get_source_totals(days, filter, names, prefixes) AS total)
    IS DISTINCT FROM ARRAY(
      SELECT ROW(source, sum(event_count)::bigint) FROM public.get_hourly_aggregates(days, filter) AS count
      WHERE pg_temp.allowed(count.source, names, prefixes)
      GROUP BY source ORDER BY sum(event_count) DESC, source COLLATE "C");
SELECT is_empty('wrong_counts', 'scoped counts are the rows of get_hourly_aggregates');
SELECT is_empty('wrong_hours', 'hourly totals are the sums of get_hourly_aggregates');
SELECT is_empty('wrong_sources', 'source totals are the sums of get_hourly_aggregates');
ANALYZE public.events, public.hourly_counts;
SELECT is_empty('wrong_hours', '... also with statistics');
SELECT is_empty('wrong_sources', '... for sources as well');
SELECT is_empty('wrong_counts', '... and for scoped counts');

-- As for a table of many sources, which parallel workers read. It takes a while to start them.
DELETE FROM asked WHERE (days = 7 AND filter IS NULL AND number <= 10) IS NOT TRUE;
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SELECT is_empty('wrong_sources', '... and by parallel workers');

SELECT * FROM finish();
ROLLBACK;
