-- What the programs ask or report when something is wrong: a batch was refused or contained
-- duplicates, a request failed, the schema is not the one they were built for.

SET ROLE steep_owner;

-- The rules are the table's own NOT NULL and CHECK constraints, read from the catalog, so
-- that a constraint added later counts too. Only the two error classes that blame the data
-- are caught; a caught error is not logged.
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
  'Returns the events that bulk_insert_events would refuse, by position from 0: invalid_payload (not jsonb), invalid_timestamp (does not cast) or invalid_event (breaks another rule of the table); stores nothing';

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
  'Counts the ids of a batch that are stored with another source than the event''s';

REVOKE ALL ON FUNCTION public.count_foreign_ids(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.count_foreign_ids(jsonb) TO steep_ingest;

-- The settings of the programs' roles keep errors, which may quote data, out of the server's
-- log. These lines tell an administrator where to look, and quote nothing. Their level, LOG,
-- is one that steep_ingest's log_min_messages lets through.
CREATE FUNCTION public.log_failure(request_ids text[], code text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  request_id text;
BEGIN
  FOREACH request_id IN ARRAY coalesce(request_ids, '{}')
  LOOP
    RAISE LOG 'request % failed with SQLSTATE %',
      left(regexp_replace(request_id, '[^0-9A-Za-z-]', '', 'g'), 64),
      left(regexp_replace(code, '[^0-9A-Z]', '', 'g'), 5);
  END LOOP;
END
$$;

COMMENT ON FUNCTION public.log_failure(text[], text) IS
  'Writes a line for each request that a statement was for, with its id and the SQLSTATE that the statement failed with, to the server''s log';

REVOKE ALL ON FUNCTION public.log_failure(text[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.log_failure(text[], text) TO steep_ingest, steep_query;

CREATE FUNCTION public.schema_level()
RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  RETURN (SELECT max(name COLLATE "C") FROM public.schema_migrations);
END
$$;

COMMENT ON FUNCTION public.schema_level() IS 'Returns the name of the newest migration applied to this database';

REVOKE ALL ON FUNCTION public.schema_level() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.schema_level() TO steep_ingest, steep_query;

RESET ROLE;
