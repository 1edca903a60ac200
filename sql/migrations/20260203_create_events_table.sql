-- The data model's table and bulk_insert_events. What differs from the data model: id and
-- source have at most 255 bytes, because an index entry has a limit, and compare byte by
-- byte (collation "C"); one index replaces three; an event's type may also be named "type";
-- bulk_insert_batches stores several batches at once.
-- get_hourly_aggregates is created with the hourly counts that it reads.

GRANT USAGE, CREATE ON SCHEMA public TO steep_owner;

SET ROLE steep_owner;

CREATE TABLE public.events (
  id text COLLATE "C" PRIMARY KEY CHECK (octet_length(id) <= 255),
  source text COLLATE "C" NOT NULL CHECK (octet_length(source) <= 255),
  timestamp timestamptz NOT NULL,
  event_type text NOT NULL CHECK (event_type IN (
    'session', 'activity', 'tool', 'agent', 'summary', 'error'
  )),
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE public.events IS 'Privacy-filtered events from monitors; written through bulk_insert_events';
COMMENT ON COLUMN public.events.id IS 'Identifier assigned by the monitor, evt_ and a suffix; unique across sources';
COMMENT ON COLUMN public.events.source IS 'Name of the monitor that sent the event';
COMMENT ON COLUMN public.events.timestamp IS 'When the event occurred, by the monitor''s clock';
COMMENT ON COLUMN public.events.event_type IS 'One of six types of event';
COMMENT ON COLUMN public.events.payload IS 'The payload, as the monitor sent it';
COMMENT ON COLUMN public.events.created_at IS 'When the event was stored';

-- No query asks by source alone. Retention and the partial hour at the start of a query's
-- window ask by time; the latter is answered from this index alone. It is ascending because
-- events mostly arrive in order: the newest entries fill the rightmost page, which is then
-- left full instead of split in half.
--
-- Server CPU time and WAL of a batch of 1000 events (257 KB), the parsing of its jsonb
-- included; PostgreSQL 15 on two cores, 2 million events of 10 sources over 30 days, medians
-- of three interleaved rounds; events arriving in order of time, and in random order:
--
--   indexes besides the primary key           in order           random
--   (timestamp) (source) (source, timestamp)  20.3 ms, 2.8 MB    39.0 ms, 6.2 MB
--   (timestamp) (source, timestamp)           18.3 ms, 2.8 MB    39.0 ms, 6.2 MB
--   BRIN (timestamp), (source, timestamp)     17.3 ms, 2.8 MB    31.7 ms, 4.9 MB
--   (timestamp, source)                       19.7 ms, 2.7 MB    29.3 ms, 5.2 MB
--
-- With timestamps in random order a BRIN index excludes nothing, and each step of
-- steepctl prune would read the whole table (0.6 s); this index needs 0.07 to 0.2 s for a
-- step of 10,000 events. Collation "C" saved 5 % with the data model's own indexes.
CREATE INDEX idx_events_timestamp ON public.events (timestamp, source);

-- There is no policy: only roles with BYPASSRLS see or change rows.
ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.events FORCE ROW LEVEL SECURITY;

GRANT ALL ON TABLE public.events TO service_role;

-- Rows are inserted in the order of their ids, so that two batches with the same ids wait
-- for each other instead of deadlocking. Of two events with one id in a batch, position
-- keeps the first.
--
-- ON CONFLICT looks up each id before it inserts it, and confirms each row in the WAL.
-- Nearly every id is new: a plain INSERT first, and ON CONFLICT only if an id existed, saves
-- 14 % of the server's time (17.4 instead of 20.5 ms a batch). PL/pgSQL keeps the plans,
-- which a function in SQL makes anew for each call. Left to choose, PL/pgSQL would plan for
-- the parameters of each call; a generic plan saves 25 to 40 µs a call and is never slower.
CREATE FUNCTION public.bulk_insert_events(events_json jsonb)
RETURNS TABLE (inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  BEGIN
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT
      event->>'id',
      event->>'source',
      (event->>'timestamp')::timestamptz,
      coalesce(event->>'eventType', event->>'type'),
      event->'payload'
    FROM jsonb_array_elements(events_json) AS batch (event)
    ORDER BY (event->>'id') COLLATE "C";
  EXCEPTION WHEN unique_violation THEN
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT
      event->>'id',
      event->>'source',
      (event->>'timestamp')::timestamptz,
      coalesce(event->>'eventType', event->>'type'),
      event->'payload'
    FROM jsonb_array_elements(events_json) WITH ORDINALITY AS batch (event, position)
    ORDER BY (event->>'id') COLLATE "C", position
    ON CONFLICT (id) DO NOTHING;
  END;

  GET DIAGNOSTICS inserted_count = ROW_COUNT;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION public.bulk_insert_events(jsonb) IS
  'Stores all events of an array, or none, and returns how many were new; an event whose id exists is skipped';

REVOKE ALL ON FUNCTION public.bulk_insert_events(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) TO service_role, steep_ingest;

-- Most of a small batch's cost is the same for each call, whatever is in it: 16 batches of 1
-- event take 0.35 ms of the server's CPU time in one call, 0.58 ms if one of the ids exists,
-- and 2.4 ms in 16 calls (pgbench, PostgreSQL 15 on two cores). The caller gives each batch a
-- position and gets it back with the count, because a sharding engine returns rows in its own
-- order.
--
-- All batches are stored by one statement in the order of the ids, even if some exist: two
-- calls that stored them one by one would deadlock, since each batch has an order of its own.
-- The result is the same as one by one: the event with the lowest position, and in a batch
-- the first, is stored and counted. All rows are inserted, not only the first of each id, so
-- that an invalid event is refused even if its id is a duplicate.
CREATE FUNCTION public.bulk_insert_batches(positions integer[], batches jsonb[])
RETURNS TABLE ("position" integer, inserted_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  IF cardinality(positions) IS DISTINCT FROM cardinality(batches) THEN
    RAISE EXCEPTION 'positions and batches must have the same length'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  BEGIN
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT
      event->>'id',
      event->>'source',
      (event->>'timestamp')::timestamptz,
      coalesce(event->>'eventType', event->>'type'),
      event->'payload'
    FROM unnest(batches) AS batch (events)
    CROSS JOIN LATERAL jsonb_array_elements(batch.events) AS element (event)
    ORDER BY (event->>'id') COLLATE "C";

    RETURN QUERY
    SELECT batch.position, coalesce(jsonb_array_length(batch.events), 0)::bigint
    FROM unnest(positions, batches) AS batch (position, events);
  EXCEPTION WHEN unique_violation THEN
    RETURN QUERY
    WITH sent AS MATERIALIZED (
      SELECT (event->>'id') COLLATE "C" AS id, event, batch.position, batch.number, element.place
      FROM unnest(positions, batches) WITH ORDINALITY AS batch (position, events, number)
      CROSS JOIN LATERAL jsonb_array_elements(batch.events) WITH ORDINALITY AS element (event, place)
    ), inserted AS (
      INSERT INTO public.events (id, source, timestamp, event_type, payload)
      SELECT
        sent.id,
        event->>'source',
        (event->>'timestamp')::timestamptz,
        coalesce(event->>'eventType', event->>'type'),
        event->'payload'
      FROM sent
      ORDER BY sent.id, sent.position, sent.number, sent.place
      ON CONFLICT (id) DO NOTHING
      RETURNING id
    ), winners AS (
      SELECT DISTINCT ON (sent.id) sent.number
      FROM sent JOIN inserted ON inserted.id = sent.id
      ORDER BY sent.id, sent.position, sent.number, sent.place
    )
    SELECT batch.position, count(winners.number)
    FROM unnest(positions) WITH ORDINALITY AS batch (position, number)
    LEFT JOIN winners ON winners.number = batch.number
    GROUP BY batch.number, batch.position;
  END;
END
$$;

COMMENT ON FUNCTION public.bulk_insert_batches(integer[], jsonb[]) IS
  'Stores several batches in order of position, all or none, and returns for each how many of its events were new; an event whose id exists is skipped';

REVOKE ALL ON FUNCTION public.bulk_insert_batches(integer[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.bulk_insert_batches(integer[], jsonb[]) TO service_role, steep_ingest;

RESET ROLE;
