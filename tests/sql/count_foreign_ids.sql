BEGIN;
SELECT no_plan();

SELECT has_function('public', 'count_foreign_ids', ARRAY['jsonb']);
SELECT function_returns('public', 'count_foreign_ids', ARRAY['jsonb'], 'bigint');
SELECT is_definer('public', 'count_foreign_ids', ARRAY['jsonb']);
SELECT volatility_is('public', 'count_foreign_ids', ARRAY['jsonb'], 'stable');
SELECT function_owner_is('public', 'count_foreign_ids', ARRAY['jsonb'], 'steep_owner'::name);
SELECT function_privs_are('public', 'count_foreign_ids', ARRAY['jsonb'], 'steep_ingest', ARRAY['EXECUTE']);
SELECT function_privs_are('public', 'count_foreign_ids', ARRAY['jsonb'], 'steep_query', ARRAY[]::text[]);
SELECT function_privs_are('public', 'count_foreign_ids', ARRAY['jsonb'], 'service_role', ARRAY[]::text[]);

INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_1', 'm', now(), 'tool', '{}'), ('evt_2', 'n', now(), 'tool', '{}'), ('evt_3', 'M', now(), 'tool', '{}');
SET SESSION AUTHORIZATION steep_ingest;
SELECT is(public.count_foreign_ids(batch), expected, what)
FROM (VALUES
  ('[]'::jsonb, 0::bigint, 'an empty batch has none'),
  (NULL, 0, 'nor has none at all'),
  ('[{"id": "evt_9", "source": "m"}]', 0, 'a new id is not foreign'),
  ('[{"id": "evt_1", "source": "m"}]', 0, 'one''s own is not'),
  ('[{"id": "evt_2", "source": "m"}]', 1, 'another''s is'),
  ('[{"id": "evt_3", "source": "m"}]', 1, 'byte for byte'),
  ('[{"id": "evt_2", "source": "m"}, {"id": "evt_2", "source": "m"}]', 1, 'an id counts once'),
  ('[{"id": "evt_1", "source": "m"}, {"id": "evt_2", "source": "m"}, {"id": "evt_3", "source": "m"}, {"id": "evt_4", "source": "m"}]',
    2, 'each counts'),
  ('[1, null, {}, []]', 0, 'what is no event has no id')
) AS batches (batch, expected, what);
SELECT throws_ok($$SELECT public.count_foreign_ids('{}')$$, '22023', NULL, 'an object is no batch');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
