-- The row, and the functions around it. This server has no standby: what one shows, tests/e2e/test_standby.py says.
BEGIN;
SELECT plan(14);

SELECT columns_are('public', 'heartbeat', ARRAY['is_single', 'beat_at']);
SELECT col_type_is('public', 'heartbeat', 'beat_at', 'timestamp with time zone', 'beat_at is timestamptz');
SELECT col_not_null('public', 'heartbeat', 'beat_at', 'beat_at is never null');
SELECT is_definer('public', 'beat', ARRAY[]::name[]);
SELECT is_definer('public', 'data_time', ARRAY[]::name[]);

INSERT INTO public.heartbeat (beat_at) VALUES ('2026-02-03 00:00Z');
SELECT throws_ok($$INSERT INTO public.heartbeat (beat_at) VALUES (now())$$, '23505', NULL, 'there is one row');
SELECT throws_ok($$INSERT INTO public.heartbeat VALUES (false, now())$$, '23514', NULL, '... and no other one');
SELECT is_empty('SELECT * FROM public.data_time()', 'on the primary, data has no age');

SET SESSION AUTHORIZATION steep_ingest;
SELECT lives_ok('SELECT public.beat()', 'ingest.fcgi can call it');
RESET SESSION AUTHORIZATION;
SELECT is(beat_at, '2026-02-03 00:00Z', 'without a standby and an archive, nothing is written') FROM public.heartbeat;
SELECT is(current_setting('synchronous_commit'), 'on', '... and nothing set');

SET SESSION AUTHORIZATION steep_query;
SELECT throws_ok('SELECT public.beat()', '42501', NULL, 'query.fcgi can''t');
SELECT lives_ok('SELECT * FROM public.data_time()', '... but asks for the age');
SELECT throws_ok('SELECT * FROM public.heartbeat', '42501', NULL, '... and can''t read the row itself');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
