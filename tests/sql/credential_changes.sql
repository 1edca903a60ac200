-- concurrency_test.sh tests transactions that change credentials at the same time.
BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'credential_changes', ARRAY['list', 'version', 'mark', 'names']);
SELECT col_is_pk('public', 'credential_changes', ARRAY['list', 'version']::name[], 'a version is unique within its list');
SELECT col_is_unique('public', 'credential_changes', 'mark', 'a mark is unique');
SELECT is_empty('SELECT FROM public.credential_changes', 'a new database has no history');

SELECT function_returns('public', f, ARRAY[]::text[], 'trigger')
FROM unnest(ARRAY['serialize_credential_changes', 'record_credential_change']::name[]) AS f;
SELECT results_eq($$
  SELECT tgname::text COLLATE "default", tgrelid::regclass::text, tgenabled FROM pg_trigger
  WHERE tgfoid IN ('public.serialize_credential_changes'::regproc, 'public.record_credential_change'::regproc) ORDER BY 1, 2
$$, $$
  SELECT name, t, 'A'::"char"
  FROM unnest(ARRAY['record_delete', 'record_insert', 'record_truncate', 'record_update', 'serialize_changes']) AS name
  CROSS JOIN unnest(ARRAY['access_tokens', 'monitor_keys']) AS t ORDER BY 1, 2
$$, 'every kind of change is serialized and recorded, also by a session in the role of a replica');

CREATE FUNCTION pg_temp.recorded(list_name text) RETURNS SETOF text[] LANGUAGE sql AS $$
  SELECT ARRAY(SELECT unnest(names) ORDER BY 1) FROM public.credential_changes WHERE list = list_name ORDER BY version
$$;
INSERT INTO public.monitor_keys (source, public_key) VALUES ('a', sha256('1')), ('a', sha256('2')), ('b', sha256('1'));
INSERT INTO public.monitor_keys (source, public_key) VALUES ('a', sha256('1')) ON CONFLICT DO NOTHING;
UPDATE public.monitor_keys SET source = 'c' WHERE source = 'b';
UPDATE public.monitor_keys SET source = 'd' WHERE source = 'b';
DELETE FROM public.monitor_keys WHERE source = 'a';
DELETE FROM public.monitor_keys WHERE source = 'a';
SELECT results_eq($$SELECT pg_temp.recorded('monitor_keys')$$, $$VALUES ('{a,b}'::text[]), ('{b,c}'), ('{a}')$$,
  'a statement is recorded with the sources that it changed, if any');
INSERT INTO public.access_tokens (label, token_sha256) VALUES ('a', sha256('1')), ('b', sha256('2'));
UPDATE public.access_tokens SET sources = '{x}' WHERE label = 'b';
DELETE FROM public.access_tokens;
SELECT results_eq($$SELECT pg_temp.recorded('access_tokens')$$, $$VALUES ('{a,b}'::text[]), ('{b}'), ('{a,b}')$$,
  '... or with the labels');
SET LOCAL session_replication_role = replica;
INSERT INTO public.access_tokens (label, token_sha256) VALUES ('r', sha256('1'));
RESET session_replication_role;
SELECT is(count(*), 1::bigint, 'what a session in the role of a replica changes is recorded') FROM public.credential_changes WHERE names = '{r}';

-- More than 1000 names are not told apart, whether one statement changes them or many.
CREATE FUNCTION pg_temp.mark() RETURNS uuid LANGUAGE sql AS 'SELECT mark FROM public.list_monitor_keys() LIMIT 1';
CREATE FUNCTION pg_temp.add(first integer, last integer) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.monitor_keys (source, public_key) SELECT 'm' || n, sha256('1') FROM generate_series(first, last) AS n
$$;
SELECT pg_temp.mark() AS mark \gset
SELECT pg_temp.add(1, 1000);
SELECT is(count(*), 1001::bigint, 'a change of 1000 sources is listed') FROM public.list_monitor_keys(:'mark');
SELECT pg_temp.add(1001, 1001);
SELECT is(count(*), 0::bigint, '... but not one of 1001, by two statements') FROM public.list_monitor_keys(:'mark');
SELECT pg_temp.mark() AS mark \gset
SELECT pg_temp.add(2000, 3000);
SELECT is(count(*), 0::bigint, '... or by one') FROM public.list_monitor_keys(:'mark');
SELECT results_eq($$SELECT names FROM public.credential_changes ORDER BY version DESC LIMIT 1$$, 'VALUES (NULL::text[])', '... which is recorded without names');

-- A history of 1000 changes.
DELETE FROM public.credential_changes WHERE list = 'monitor_keys';
SELECT pg_temp.add(5000, 5000);
SELECT pg_temp.mark() AS mark \gset
DO $$ BEGIN FOR n IN 1..999 LOOP UPDATE public.monitor_keys SET created_at = now() WHERE source = 'm5000'; END LOOP; END $$;
SELECT results_eq(format('SELECT source FROM public.list_monitor_keys(%L) OFFSET 1', :'mark'), $$VALUES ('m5000')$$, 'what changed is known for 999 changes');
UPDATE public.monitor_keys SET created_at = now() WHERE source = 'm5000';
SELECT is(count(*), 0::bigint, '... but not for 1000') FROM public.list_monitor_keys(:'mark');
SELECT is(count(*), 1000::bigint, '... of which the last 1000 are kept') FROM public.credential_changes WHERE list = 'monitor_keys';
SELECT ok(count(*) BETWEEN 1 AND 1000, '... and those of the other list') FROM public.credential_changes WHERE list = 'access_tokens';

-- Without a history, everything is read each time.
TRUNCATE public.credential_changes;
SELECT is(count(mark), 0::bigint, 'without a history, there is no mark') FROM public.list_monitor_keys();
SELECT is(count(source), (SELECT count(*) FROM public.monitor_keys), '... and every key is listed') FROM public.list_monitor_keys();
SELECT pg_temp.add(6000, 6000);
SELECT is(count(mark), 1::bigint, 'the next change begins one') FROM public.list_monitor_keys();

-- An erased name is in no record.
INSERT INTO public.monitor_keys (source, public_key) VALUES ('secret', sha256('1')), ('other', sha256('1'));
SELECT pg_temp.mark() AS mark \gset
SELECT public.begin_erase('secret');
SELECT is(count(*), 0::bigint, 'erasing a source removes its name from the history')
FROM public.credential_changes WHERE 'secret' = ANY (names);
SELECT is(count(*), 0::bigint, '... after which everything is read') FROM public.list_monitor_keys(:'mark');

SELECT * FROM finish();
ROLLBACK;
