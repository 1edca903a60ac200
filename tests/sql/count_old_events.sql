BEGIN;
SELECT no_plan();

SELECT has_function('public', 'count_old_events', ARRAY['interval']);
SELECT is_definer('public', 'count_old_events', ARRAY['interval']);
SELECT volatility_is('public', 'count_old_events', ARRAY['interval'], 'stable');
SELECT is(pg_get_function_arguments('public.count_old_events(interval)'::regprocedure),
  'older_than interval DEFAULT ''90 days''::interval', 'the default is that of prune_events');

PREPARE counted AS SELECT * FROM public.count_old_events();
SELECT results_eq('counted', 'VALUES (0::bigint, 0::bigint, NULL::timestamptz, NULL::timestamptz)', 'without events it returns 0 and no times');

INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_' || n, 'm' || n % 3, now() - n * interval '1 day', 'tool', '{}' FROM generate_series(-5, 200) AS n;
-- In the hour that is 90 days ago: one event older than that, which is counted, one just as old, and one of the next hour.
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_a', 'm1', now() - interval '90 days 1 microsecond', 'tool', '{}'),
  ('evt_b', 'm1', date_trunc('hour', now() - interval '90 days', 'UTC') + interval '1 hour', 'tool', '{}');

SET SESSION AUTHORIZATION steep_prune;
SELECT results_eq('SELECT old_events, all_events FROM public.count_old_events()', 'VALUES (111::bigint, 208::bigint)', 'it counts the old events and all');
SELECT results_eq('SELECT begin_at, end_at FROM public.count_old_events()',
  $$VALUES (date_trunc('hour', now() - interval '200 days', 'UTC'), now() - interval '90 days')$$,
  'it returns when the first hour begins, and when the last, partial one ends');
SELECT results_eq($$SELECT old_events, end_at FROM public.count_old_events('150 days 1 hour')$$,
  $$VALUES (50::bigint, date_trunc('hour', now() - interval '151 days', 'UTC') + interval '1 hour')$$,
  '... or the last whole one');
RESET SESSION AUTHORIZATION;

CREATE TEMP TABLE announced AS SELECT * FROM public.count_old_events();
SELECT is(public.prune_events(), (SELECT old_events FROM announced), 'prune_events deletes as many');
SELECT results_eq('SELECT old_events, begin_at, end_at FROM public.count_old_events()',
  'VALUES (0::bigint, NULL::timestamptz, NULL::timestamptz)', '... and none is left');
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_c', 'm', '-infinity', 'tool', '{}');
SELECT results_eq('SELECT old_events, begin_at FROM public.count_old_events()', $$VALUES (1::bigint, '-infinity'::timestamptz)$$,
  'an event at -infinity is old');

SELECT throws_ok(format('SELECT public.count_old_events(%s)', arguments), '22023', NULL, arguments || ' is refused')
FROM (VALUES ('NULL'), ('''-1 second''')) AS bad (arguments);

SELECT * FROM finish();
ROLLBACK;
