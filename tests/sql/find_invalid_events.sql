BEGIN;
SELECT no_plan();

SELECT has_function('public', 'find_invalid_events', ARRAY['text[]']);
SELECT is(pg_get_function_result('public.find_invalid_events'::regproc), 'TABLE(index integer, error text)');
SELECT is_definer('public', 'find_invalid_events', ARRAY['text[]']);
SELECT volatility_is('public', 'find_invalid_events', ARRAY['text[]'], 'stable');

CREATE TEMP TABLE samples (what text, event text, error text);
GRANT SELECT ON samples TO PUBLIC;
-- Of a key given twice, the last counts.
INSERT INTO samples
SELECT what, replace(replace($${"id": ID, "source": "m", "timestamp": "2026-02-03T14:35:00Z", TYPE, "payload": {}}$$,
  'ID', coalesce(id, '"evt_' || row_number() OVER () || '"')), 'TYPE', type), error
FROM (VALUES
  ('a good event', NULL, '"type": "tool"', NULL),
  ('eventType alone', NULL, '"eventType": "agent"', NULL),
  ('both types', NULL, '"eventType": "agent", "type": "bad"', NULL),
  ('an id of 255 bytes', '"' || repeat('x', 255) || '"', '"type": "tool"', NULL),
  ('an id that is a number', '1', '"type": "tool"', NULL),
  ('an id of 256 bytes', '"' || repeat('x', 256) || '"', '"type": "tool"', 'invalid_event'),
  ('an id that is null', 'null', '"type": "tool"', 'invalid_event'),
  ('a bad type', NULL, '"type": "bad"', 'invalid_event'),
  ('a bad eventType', NULL, '"eventType": "bad", "type": "tool"', 'invalid_event'),
  ('no type', NULL, '"other": 1', 'invalid_event'),
  ('a second timestamp', NULL, '"type": "tool", "timestamp": "never"', 'invalid_timestamp'),
  ('a source too long', NULL, '"type": "tool", "source": "' || repeat('x', 256) || '"', 'invalid_event'),
  ('a timestamp that is null', NULL, '"type": "tool", "timestamp": null', 'invalid_event'),
  ('30 February', NULL, '"type": "tool", "timestamp": "2026-02-30T00:00:00Z"', 'invalid_timestamp'),
  ('an offset too far', NULL, '"type": "tool", "timestamp": "2026-02-03T00:00:00+16:00"', 'invalid_timestamp'),
  ('an unknown time zone', NULL, '"type": "tool", "timestamp": "2026-02-03 00:00:00 Mars/Base"', 'invalid_timestamp'),
  ('a year too late', NULL, '"type": "tool", "timestamp": "294277-01-01T00:00:00Z"', 'invalid_timestamp'),
  ('a bad timestamp and a bad type', NULL, '"type": "bad", "timestamp": "never"', 'invalid_timestamp'),
  ('U+0000', NULL, '"type": "tool", "x": "\u0000"', 'invalid_payload'),
  ('a lone surrogate', NULL, '"type": "tool", "x": "\ud800"', 'invalid_payload'),
  ('a raw control character', NULL, E'"type": "tool", "x": "\x01"', 'invalid_payload'),
  ('NaN', NULL, '"type": "tool", "x": NaN', 'invalid_payload'),
  ('a number too large', NULL, '"type": "tool", "x": 1e131072', 'invalid_payload'),
  ('a leading zero', NULL, '"type": "tool", "x": 01', 'invalid_payload'),
  ('a single quote', NULL, '"type": "tool", ''x'': 1', 'invalid_payload'),
  ('U+0000 and a bad timestamp', NULL, '"type": "tool", "timestamp": "never", "x": "\u0000"', 'invalid_payload')
) AS samples (what, id, type, error);
INSERT INTO samples VALUES
  ('a payload that is a string', '{"id": "evt_p", "source": "m", "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": "x"}', NULL),
  ('a payload that is null', '{"id": "evt_q", "source": "m", "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": null}', NULL),
  ('no payload', '{"id": "evt_r", "source": "m", "timestamp": "2026-02-03T14:35:00Z", "type": "tool"}', 'invalid_event'),
  ('no source', '{"id": "evt_s", "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": {}}', 'invalid_event'),
  ('no timestamp', '{"id": "evt_t", "source": "m", "type": "tool", "payload": {}}', 'invalid_event'),
  ('an empty object', '{}', 'invalid_event'),
  ('an array', '[]', 'invalid_event'),
  ('a number', '1', 'invalid_event'),
  ('null', 'null', 'invalid_event'),
  ('an empty string', '', 'invalid_payload'),
  ('half an event', '{"id": "evt_u"', 'invalid_payload'),
  ('two events', '{} {}', 'invalid_payload'),
  ('100000 nested arrays', repeat('[', 100000), 'invalid_payload');

SET SESSION AUTHORIZATION steep_ingest;
SELECT is((SELECT error FROM public.find_invalid_events(ARRAY[event])), error, coalesce(error, 'valid') || ': ' || what)
FROM samples;
SELECT is_empty('SELECT * FROM public.find_invalid_events(ARRAY[]::text[])', 'an empty batch has no invalid events');
SELECT is_empty('SELECT * FROM public.find_invalid_events(NULL)', 'nor has NULL');
RESET SESSION AUTHORIZATION;
SELECT is((SELECT count(*) FROM public.events), 0::bigint, 'nothing is stored');

CREATE TEMP TABLE all_events AS SELECT array_agg(event ORDER BY ctid) AS events, array_agg(error ORDER BY ctid) AS errors FROM samples;
SELECT results_eq($$SELECT * FROM public.find_invalid_events((SELECT events FROM all_events))$$, $$
  SELECT position::integer - 1, error FROM all_events, unnest(errors) WITH ORDINALITY AS e (error, position) WHERE error IS NOT NULL
$$, 'positions count from 0');
SELECT results_eq($$SELECT index FROM public.find_invalid_events('[5:6]={1,2}'::text[])$$, 'VALUES (0), (1)',
  '... whatever the array''s lower bound');
SELECT results_eq('SELECT * FROM public.find_invalid_events(ARRAY[NULL]::text[])', $$VALUES (0, 'invalid_event')$$,
  'a NULL element is invalid');

-- bulk_insert_events gives the same verdict on every sample.
CREATE FUNCTION pg_temp.is_refused(event text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.bulk_insert_events(('[' || event || ']')::jsonb);
  RETURN false;
EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
  RETURN true;
END
$$;
SELECT is(pg_temp.is_refused(event), error IS NOT NULL, 'bulk_insert_events agrees: ' || what)
FROM samples WHERE what <> 'an empty string';

SELECT is_empty($$SELECT * FROM public.find_invalid_events(ARRAY(SELECT event FROM samples WHERE error IS NULL))$$,
  'a duplicate is valid');
ALTER TABLE public.events ADD CHECK (source <> 'm') NOT VALID;
SELECT results_eq($$SELECT error FROM public.find_invalid_events(ARRAY(SELECT event FROM samples WHERE what = 'a good event'))$$,
  $$VALUES ('invalid_event')$$, 'a CHECK added to the table is applied');

SELECT * FROM finish();
ROLLBACK;
