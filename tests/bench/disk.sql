-- What is stored of an event and of an hour's count, in bytes, in an empty database, and what of
-- the write-ahead log a batch of 10 events takes: in the long run, and at first after a checkpoint,
-- when the log has each page whole that is changed. The events are those of fill. Prints a JSON
-- object. A btree is as dense as its last inserts leave it: ids are random, times in order.
--
-- psql variable: events
SET client_min_messages = warning;
TRUNCATE public.events;

CREATE FUNCTION pg_temp.payload(number bigint) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('sessionId', md5((number / 100)::text), 'tool', 'Read', 'status', 'completed',
    'durationMs', number % 5000, 'context', repeat('x', 60))
$$;
CREATE FUNCTION pg_temp.store(events bigint, are_empty boolean) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || substr(md5(number::text), 1, 20), 'source-' || number % 10, now() - number * interval '1 second', 'tool',
    CASE WHEN are_empty THEN '{}' ELSE pg_temp.payload(number) END
  FROM generate_series(events, 1, -1) AS number
$$;

SELECT pg_temp.store(:events, true) \g /dev/null
SELECT pg_relation_size('public.events') AS emptied \gset
TRUNCATE public.events;
SELECT pg_temp.store(:events, false) \g /dev/null
SELECT pg_relation_size('public.events') AS heap, pg_relation_size('public.events_pkey') AS ids, pg_indexes_size('public.events') AS indexes \gset

CREATE PROCEDURE pg_temp.store_batches(batches integer) LANGUAGE plpgsql AS $$
BEGIN
  FOR batch IN 1..batches LOOP
    PERFORM public.bulk_insert_events((
      SELECT jsonb_agg(jsonb_build_object('id', 'evt_' || substr(md5(random()::text), 1, 20), 'source', 'source-' || batch % 500,
        'timestamp', now(), 'type', 'tool', 'payload', pg_temp.payload(batch))) FROM generate_series(1, 10)));
    COMMIT;
  END LOOP;
END
$$;
CHECKPOINT;
SELECT pg_current_wal_lsn() AS before \gset
CALL pg_temp.store_batches(100);
SELECT (pg_current_wal_lsn() - :'before'::pg_lsn) / 100 AS first_log \gset

TRUNCATE public.events;
INSERT INTO public.hourly_counts (source, hour, event_count)
SELECT 'source-' || source, date_trunc('hour', now()) - back * interval '1 hour', 600
FROM generate_series(719, 0, -1) AS back, generate_series(1, 200) AS source;
SELECT pg_total_relation_size('public.hourly_counts') / 144000.0 AS count \gset

TRUNCATE public.events;
CHECKPOINT;
SELECT pg_current_wal_lsn() AS before \gset
CALL pg_temp.store_batches(2000);
SELECT json_build_object('measure', 'disk', 'side', 'steep', 'stored_events', :events,
  'event_bytes', round(:heap / :events.0), 'emptied_bytes', round(:emptied / :events.0), 'id_bytes', round(:ids / :events.0),
  'index_bytes', round(:indexes / :events.0), 'count_bytes', round(:count),
  'log_bytes', round((pg_current_wal_lsn() - :'before'::pg_lsn) / 2000), 'first_log_bytes', round(:first_log));
TRUNCATE public.events;
