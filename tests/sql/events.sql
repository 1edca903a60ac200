BEGIN;
SELECT no_plan();

SELECT columns_are('public', 'events', ARRAY['id', 'source', 'timestamp', 'event_type', 'payload', 'created_at']);
SELECT col_type_is('public', 'events', 'id', 'text', 'id is text');
SELECT col_type_is('public', 'events', 'source', 'text', 'source is text');
SELECT col_type_is('public', 'events', 'timestamp', 'timestamp with time zone', 'timestamp is timestamptz');
SELECT col_type_is('public', 'events', 'event_type', 'text', 'event_type is text');
SELECT col_type_is('public', 'events', 'payload', 'jsonb', 'payload is jsonb');
SELECT col_type_is('public', 'events', 'created_at', 'timestamp with time zone', 'created_at is timestamptz');
SELECT col_not_null('public', 'events', name, name || ' is never null')
FROM unnest(ARRAY['id', 'source', 'timestamp', 'event_type', 'payload', 'created_at']) AS name;
SELECT col_is_pk('public', 'events', 'id', 'id is the primary key');
SELECT col_default_is('public', 'events', 'created_at', 'now()', 'created_at is now() by default');

SELECT indexes_are('public', 'events', ARRAY['events_pkey', 'idx_events_timestamp']);
SELECT is(pg_get_indexdef('public.idx_events_timestamp'::regclass),
  'CREATE INDEX idx_events_timestamp ON public.events USING btree ("timestamp", source)');
SELECT is_empty($$
  SELECT attname FROM pg_attribute
  WHERE attrelid = 'public.events'::regclass AND attname IN ('id', 'source') AND attcollation <> 'pg_catalog."C"'::regcollation
$$, 'id and source have collation "C"');


PREPARE new_event(text, text, text) AS
  INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ($1, $2, now(), $3, '{}');
SELECT lives_ok(format('EXECUTE new_event(%L, %L, %L)', 'evt_' || name, 'm', name), 'event_type may be ' || name)
FROM unnest(ARRAY['session', 'activity', 'tool', 'agent', 'summary', 'error']) AS name;
SELECT throws_ok(format('EXECUTE new_event(%L, %L, %L)', 'evt_x', 'm', name), '23514', NULL,
  format('event_type may not be %L', name))
FROM unnest(ARRAY['', 'Tool', 'tool ', 'other']) AS name;
SELECT throws_ok($$EXECUTE new_event('evt_session', 'm', 'tool')$$, '23505', NULL, 'an id is unique');

-- The letter has two bytes: the limit counts bytes.
SELECT lives_ok(format('EXECUTE new_event(%L, %L, %L)', repeat('é', 127) || 'x', 'm', 'tool'), 'an id may have 255 bytes');
SELECT throws_ok(format('EXECUTE new_event(%L, %L, %L)', repeat('é', 128), 'm', 'tool'), '23514', NULL, '... and not 256');
SELECT lives_ok(format('EXECUTE new_event(%L, %L, %L)', 'evt_s', repeat('é', 127) || 'x', 'tool'), 'a source may have 255 bytes');
SELECT throws_ok(format('EXECUTE new_event(%L, %L, %L)', 'evt_t', repeat('é', 128), 'tool'), '23514', NULL, '... and not 256');

-- FORCE applies to the owner too; steep_owner is exempt only because of BYPASSRLS.
CREATE ROLE steep_test_reader NOBYPASSRLS;
GRANT USAGE ON SCHEMA public TO steep_test_reader;
GRANT SELECT, INSERT ON public.events TO steep_test_reader;
SET ROLE steep_test_reader;
SELECT is_empty('SELECT * FROM public.events', 'a role with SELECT but without BYPASSRLS sees no rows');
SELECT throws_ok($$EXECUTE new_event('evt_y', 'm', 'tool')$$, '42501', NULL, '... and cannot insert');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
