BEGIN;
SELECT no_plan();

SELECT has_function('public', 'empty_payloads', ARRAY['interval', 'integer', 'timestamp with time zone']);
SELECT is_definer('public', 'empty_payloads', ARRAY['interval', 'integer', 'timestamp with time zone']);
SELECT volatility_is('public', 'empty_payloads', ARRAY['interval', 'integer', 'timestamp with time zone'], 'volatile');

INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_' || n, 'm' || n % 3, now() - n * interval '1 day', 'tool', CASE WHEN n % 10 = 0 THEN '{}' ELSE '{"n": 1}' END::jsonb
FROM generate_series(-5, 40) AS n;
CREATE TEMP TABLE before AS SELECT *, xmin::text AS version, ctid AS place FROM public.events;
-- More events at one instant than a step takes.
INSERT INTO public.events (id, source, timestamp, event_type, payload)
SELECT 'evt_same_' || n, 'same', now() - interval '60 days', 'tool', '{"n": 1}' FROM generate_series(1, 25) AS n;
CREATE TEMP TABLE counted AS SELECT source, hour, event_count FROM public.hourly_counts;

SET SESSION AUTHORIZATION service_role;
SELECT is(public.empty_payloads(max_rows => 10), (10::bigint, now() - interval '60 days'), 'a step empties at most max_rows payloads, the oldest first');
SELECT is(public.empty_payloads('7 days', 10, now() - interval '60 days'), (10::bigint, now() - interval '60 days'),
  'the next step continues there, even within one instant');
SELECT is(public.empty_payloads('7 days', 10, now() - interval '60 days'), (10::bigint, now() - interval '35 days'), '... and after it');
SELECT is(public.empty_payloads('7 days', 1000, now() - interval '35 days'), (24::bigint, now() - interval '8 days'), 'the last step empties the rest');
SELECT is(public.empty_payloads('7 days', 1000, now() - interval '8 days'), (0::bigint, NULL::timestamptz), '... and then none is left');
SELECT is(public.empty_payloads(), (0::bigint, NULL::timestamptz), '... nor from the beginning');
RESET SESSION AUTHORIZATION;

SELECT results_eq($$SELECT payload = '{}', count(*) FROM public.events WHERE timestamp < now() - interval '7 days' GROUP BY 1$$,
  'VALUES (true, 58::bigint)', 'every old payload is empty');
SELECT is_empty($$SELECT id FROM public.events JOIN before USING (id)
  WHERE events.timestamp >= now() - interval '7 days' AND (events.payload, events.ctid) IS DISTINCT FROM (before.payload, before.place)$$,
  '... and no newer event was written');
SELECT is_empty($$SELECT id FROM public.events JOIN before USING (id)
  WHERE before.payload = '{}' AND (events.ctid, events.xmin::text) IS DISTINCT FROM (before.place, before.version)$$,
  'events whose payload was empty are not written again');
SELECT bag_eq('SELECT id, source, timestamp, event_type, created_at FROM public.events',
  $$SELECT id, source, timestamp, event_type, created_at FROM before
    UNION ALL SELECT 'evt_same_' || n, 'same', now() - interval '60 days', 'tool', now() FROM generate_series(1, 25) AS n$$,
  'the other columns are unchanged');
SELECT bag_eq('SELECT source, hour, event_count FROM public.hourly_counts', 'SELECT source, hour, event_count FROM counted', 'the hourly counts are unchanged');
SELECT is_empty('SELECT * FROM public.check_hourly_counts()', '... and correct');
SELECT is(public.bulk_insert_events(jsonb_build_array(jsonb_build_object('id', 'evt_39', 'source', 'm0', 'timestamp', now(),
  'type', 'tool', 'payload', '{"n": 2}'::jsonb))), 0::bigint, 'an event with an emptied payload is still a duplicate');

SELECT throws_ok(format('SELECT public.empty_payloads(%s)', arguments), '22023', NULL, arguments || ' is refused')
FROM (VALUES ('NULL'), ('''-1 second'''), ('''7 days'', 0'), ('''7 days'', NULL'), ('''7 days'', 10, NULL')) AS bad (arguments);

SELECT * FROM finish();
ROLLBACK;
