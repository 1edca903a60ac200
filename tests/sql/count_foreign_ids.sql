BEGIN;
SELECT no_plan();

SELECT has_function('public', 'count_foreign_ids', ARRAY['jsonb']);
SELECT function_returns('public', 'count_foreign_ids', ARRAY['jsonb'], 'bigint');
SELECT is_definer('public', 'count_foreign_ids', ARRAY['jsonb']);
SELECT volatility_is('public', 'count_foreign_ids', ARRAY['jsonb'], 'stable');

INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
  ('evt_1', 'm', now(), 'tool', '{}'), ('evt_2', 'n', now(), 'tool', '{}'), ('evt_3', 'M', now(), 'tool', '{}');
SET SESSION AUTHORIZATION steep_ingest;
SELECT is(public.count_foreign_ids(batch), expected, what)
FROM (VALUES
  ('[]'::jsonb, 0::bigint, 'an empty batch: none'),
  (NULL, 0, 'NULL: none'),
  ('[{"id": "evt_9", "source": "m"}]', 0, 'a new id: not foreign'),
  ('[{"id": "evt_1", "source": "m"}]', 0, 'an id of the same source: not foreign'),
  ('[{"id": "evt_2", "source": "m"}]', 1, 'an id of another source: foreign'),
  ('[{"id": "evt_3", "source": "m"}]', 1, 'sources that differ in case: foreign'),
  ('[{"id": "evt_2", "source": "m"}, {"id": "evt_2", "source": "m"}]', 1, 'an id given twice: counted once'),
  ('[{"id": "evt_1", "source": "m"}, {"id": "evt_2", "source": "m"}, {"id": "evt_3", "source": "m"}, {"id": "evt_4", "source": "m"}]',
    2, 'two foreign ids: both counted'),
  ('[1, null, {}, []]', 0, 'elements without an id: none')
) AS batches (batch, expected, what);
SELECT throws_ok($$SELECT public.count_foreign_ids('{}')$$, '22023', NULL, 'refused: an object instead of an array');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
