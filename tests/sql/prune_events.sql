BEGIN;
SELECT no_plan();

SELECT has_function('public', 'prune_events', ARRAY['interval', 'integer']);
SELECT function_returns('public', 'prune_events', ARRAY['interval', 'integer'], 'bigint');
SELECT is_definer('public', 'prune_events', ARRAY['interval', 'integer']);
SELECT volatility_is('public', 'prune_events', ARRAY['interval', 'integer'], 'volatile');
SELECT is(pg_get_function_arguments('public.prune_events(interval,integer)'::regprocedure),
  'older_than interval DEFAULT ''90 days''::interval, max_rows integer DEFAULT 10000', 'the defaults are 90 days and 10,000 rows');

CREATE FUNCTION pg_temp.fill() RETURNS void LANGUAGE sql AS $$
  DELETE FROM public.events;
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || n, 'm' || n % 3, now() - n * interval '1 day', 'tool', '{"n": 1}' FROM generate_series(-5, 200) AS n;
$$;
-- The data model's own DELETE, to compare what is left.
PREPARE seed AS DELETE FROM public.events WHERE timestamp < NOW() - INTERVAL '90 days';
PREPARE left_over AS SELECT id FROM public.events ORDER BY id;
PREPARE miscounted AS SELECT * FROM public.check_hourly_counts();

SELECT pg_temp.fill();
SET SESSION AUTHORIZATION service_role;
SELECT is(public.prune_events(), 110::bigint, 'without arguments it deletes events older than 90 days');
SELECT is(public.prune_events(), 0::bigint, '... and a second call none');
RESET SESSION AUTHORIZATION;
CREATE TEMP TABLE ours AS EXECUTE left_over;
SELECT is_empty('miscounted', '... and their hourly counts');
SELECT isnt_empty('SELECT FROM public.hourly_counts', '... and only theirs');
SELECT pg_temp.fill();
EXECUTE seed;
SELECT bag_eq('left_over', 'SELECT id FROM ours', 'the data model''s own DELETE leaves the same events');
SELECT ok(EXISTS (SELECT FROM ours WHERE id = 'evt_90'), 'an event exactly 90 days old is kept');

SELECT pg_temp.fill();
SELECT is(public.prune_events('100 days', 60), 60::bigint, 'a step deletes at most max_rows events');
SELECT is((SELECT max(timestamp) FROM public.events), now() + interval '5 days', '... keeps the newest');
SELECT is((SELECT min(timestamp) FROM public.events), now() - interval '140 days', '... and deletes the oldest first');
SELECT is(public.prune_events('100 days', 60), 40::bigint, 'the last step deletes the rest');
SELECT is(public.prune_events('100 days', 60), 0::bigint, '... and then none is left');
SELECT is_empty('miscounted', 'the hourly counts are correct');
SELECT is(public.prune_events(max_rows => 1), 1::bigint, 'max_rows may be 1');
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_a', 'm', '-infinity', 'tool', '{}'), ('evt_b', 'm', 'infinity', 'tool', '{}');
SELECT public.prune_events();
SELECT results_eq($$SELECT id FROM public.events WHERE id IN ('evt_a', 'evt_b')$$, $$VALUES ('evt_b' COLLATE "C")$$,
  'an event at -infinity is deleted, one at infinity kept');
SELECT is(public.prune_events('0'), 90::bigint, 'an interval of 0 deletes all past events');
SELECT is((SELECT count(*) FROM public.events), 7::bigint, '... and keeps current and future ones');
SELECT is_empty('miscounted', 'the hourly counts are correct again');

SELECT throws_ok(format('SELECT public.prune_events(%s)', arguments), '22023', NULL, arguments || ' is refused')
FROM (VALUES ('NULL'), ('''-1 second'''), ('''90 days'', 0'), ('''90 days'', -1'), ('''90 days'', NULL')) AS bad (arguments);
SELECT is((SELECT count(*) FROM public.events), 7::bigint, '... and deletes nothing');

SELECT * FROM finish();
ROLLBACK;
