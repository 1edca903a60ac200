-- What the ingest program asks after a batch that was refused, or that held
-- duplicates.

SET ROLE steep_owner;

-- The table's own NOT NULLs and CHECKs are the rules, read from the catalog, so
-- that a rule added to the table is known here. An error caught is an error that
-- is not logged. Only the two classes that blame the data are caught.
CREATE FUNCTION public.find_invalid_events(events text[])
RETURNS TABLE (index integer, error text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  acceptable text;
  is_acceptable boolean;
  event_text text;
  event jsonb;
  candidate public.events;
BEGIN
  SELECT format('SELECT %s FROM (SELECT ($1).*) AS candidate', string_agg(rule, ' AND '))
  INTO acceptable
  FROM (
    SELECT format('%I IS NOT NULL', attname)
    FROM pg_attribute
    WHERE attrelid = 'public.events'::regclass AND attnum > 0 AND attnotnull AND NOT attisdropped
    UNION ALL
    SELECT format('(%s) IS NOT FALSE', pg_get_expr(conbin, conrelid))
    FROM pg_constraint
    WHERE conrelid = 'public.events'::regclass AND contype = 'c'
  ) AS rules (rule);

  FOR event_text, index IN
    SELECT batch.event_text, batch.position - 1
    FROM unnest(events) WITH ORDINALITY AS batch (event_text, position)
  LOOP
    error := 'invalid_payload';
    BEGIN
      event := event_text::jsonb;
      error := 'invalid_timestamp';
      candidate.timestamp := (event->>'timestamp')::timestamptz;
      error := NULL;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
      NULL;
    END;

    IF error IS NULL THEN
      candidate.id := event->>'id';
      candidate.source := event->>'source';
      candidate.event_type := coalesce(event->>'eventType', event->>'type');
      candidate.payload := event->'payload';
      candidate.created_at := now();
      EXECUTE acceptable INTO is_acceptable USING candidate;
      CONTINUE WHEN is_acceptable;
      error := 'invalid_event';
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION public.find_invalid_events(text[]) IS
  'Which of these events bulk_insert_events would refuse, by position from 0: invalid_payload (not jsonb), invalid_timestamp (does not cast) or invalid_event (any other rule of the table); stores nothing';

REVOKE ALL ON FUNCTION public.find_invalid_events(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.find_invalid_events(text[]) TO steep_ingest;

CREATE FUNCTION public.count_foreign_ids(events_json jsonb)
RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT count(DISTINCT stored.id)
  FROM jsonb_array_elements(events_json) AS batch (event)
  JOIN public.events AS stored ON stored.id = batch.event->>'id'
  WHERE stored.source <> batch.event->>'source';
$$;

COMMENT ON FUNCTION public.count_foreign_ids(jsonb) IS
  'How many of the batch''s ids are stored under a source other than the event''s own';

REVOKE ALL ON FUNCTION public.count_foreign_ids(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.count_foreign_ids(jsonb) TO steep_ingest;

RESET ROLE;
