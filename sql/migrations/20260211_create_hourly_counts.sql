-- The hourly counts beside the events, kept by triggers, so that a heatmap costs
-- the same however many events there are. One transaction, as sql/migrate makes
-- it: nothing that is stored meanwhile is missed.

SET ROLE steep_owner;

-- INFO is shown whatever client_min_messages is. Before the lock, so that whoever
-- reads it can still interrupt.
DO $$
DECLARE
  stored bigint := (SELECT count(*) FROM public.events);
BEGIN
  IF stored > 0 THEN
    RAISE INFO 'counting % events: for about % s nothing can be stored, and senders are told to come back (measured: 0.4 s for each million)',
      stored, ceil(stored * 0.4 / 1000000);
  END IF;
END
$$;

LOCK TABLE public.events IN SHARE ROW EXCLUSIVE MODE;

-- date and hour_of_day are what get_hourly_aggregates returns, made once when an
-- hour begins and not for every row of every answer: that was half its time. They
-- and the key never change, so that with free space in the page an update is HOT
-- and touches no index: 99.5 % of them were, at a fillfactor of 100, 90 or 50, as a
-- page's dead versions are soon cleared. 90 leaves room where pages are full, after
-- a rebuild, and the table small for its readers.
CREATE TABLE public.hourly_counts (
  source text COLLATE "C" NOT NULL,
  hour timestamptz NOT NULL,
  event_count bigint NOT NULL,
  date date GENERATED ALWAYS AS ((hour AT TIME ZONE 'UTC')::date) STORED,
  hour_of_day integer GENERATED ALWAYS AS (extract(hour FROM hour AT TIME ZONE 'UTC')::integer) STORED,
  PRIMARY KEY (source, hour)
) WITH (fillfactor = 90);

COMMENT ON TABLE public.hourly_counts IS 'How many events there are of each source and UTC hour; kept by the triggers on events';
COMMENT ON COLUMN public.hourly_counts.source IS 'Name of the monitor that sent the events';
COMMENT ON COLUMN public.hourly_counts.hour IS 'When the hour begins; infinity stands for itself';
COMMENT ON COLUMN public.hourly_counts.event_count IS 'The number of events, never 0 once a statement has ended';
COMMENT ON COLUMN public.hourly_counts.date IS 'The hour''s date in UTC';
COMMENT ON COLUMN public.hourly_counts.hour_of_day IS 'The hour''s number in its day of UTC, 0 to 23; NULL at infinity';

-- The order of the answer for all sources; the primary key has that for one.
CREATE INDEX idx_hourly_counts_hour ON public.hourly_counts (hour DESC, source);

ALTER TABLE public.hourly_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.hourly_counts FORCE ROW LEVEL SECURITY;

-- Every change goes through the keys in their order, so that two of them wait for
-- each other and do not deadlock.
CREATE FUNCTION public.count_inserted_events()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  INSERT INTO public.hourly_counts AS counts (source, hour, event_count)
  SELECT added.source, date_trunc('hour', added.timestamp), count(*)
  FROM added
  GROUP BY 1, 2
  ORDER BY 1, 2
  ON CONFLICT (source, hour) DO UPDATE SET event_count = counts.event_count + excluded.event_count;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.count_inserted_events() IS 'Trigger: adds the events that an INSERT stored to the hourly counts';

REVOKE ALL ON FUNCTION public.count_inserted_events() FROM PUBLIC;

-- A CHECK (event_count > 0) would refuse a decrease when it is proposed, before
-- ON CONFLICT turns it into an update; this looks at what came of it. Only counts
-- that something bypassed can fall below 0.
CREATE FUNCTION public.count_deleted_events()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  lowest bigint;
BEGIN
  WITH changed AS (
    INSERT INTO public.hourly_counts AS counts (source, hour, event_count)
    SELECT removed.source, date_trunc('hour', removed.timestamp), -count(*)
    FROM removed
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (source, hour) DO UPDATE SET event_count = counts.event_count + excluded.event_count
    RETURNING event_count
  )
  SELECT min(event_count) INTO lowest FROM changed;

  IF lowest < 0 THEN
    RAISE EXCEPTION 'the hourly counts know fewer events than there are'
      USING ERRCODE = 'data_corrupted', HINT = 'Run steepctl counts rebuild.';
  ELSIF lowest = 0 THEN
    DELETE FROM public.hourly_counts AS counts
    USING (SELECT DISTINCT removed.source, date_trunc('hour', removed.timestamp) AS hour FROM removed) AS emptied
    WHERE counts.source = emptied.source AND counts.hour = emptied.hour AND counts.event_count = 0;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.count_deleted_events() IS 'Trigger: takes the events that a DELETE removed from the hourly counts';

REVOKE ALL ON FUNCTION public.count_deleted_events() FROM PUBLIC;

-- The difference of what was and what is, so that an UPDATE that moves nothing
-- touches no count.
CREATE FUNCTION public.count_updated_events()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  lowest bigint;
BEGIN
  WITH changed AS (
    INSERT INTO public.hourly_counts AS counts (source, hour, event_count)
    SELECT moved.source, moved.hour, sum(moved.change)
    FROM (
      SELECT removed.source, date_trunc('hour', removed.timestamp) AS hour, -1 AS change FROM removed
      UNION ALL
      SELECT added.source, date_trunc('hour', added.timestamp), 1 FROM added
    ) AS moved
    GROUP BY 1, 2
    HAVING sum(moved.change) <> 0
    ORDER BY 1, 2
    ON CONFLICT (source, hour) DO UPDATE SET event_count = counts.event_count + excluded.event_count
    RETURNING event_count
  )
  SELECT min(event_count) INTO lowest FROM changed;

  IF lowest < 0 THEN
    RAISE EXCEPTION 'the hourly counts know fewer events than there are'
      USING ERRCODE = 'data_corrupted', HINT = 'Run steepctl counts rebuild.';
  ELSIF lowest = 0 THEN
    DELETE FROM public.hourly_counts AS counts
    USING (SELECT DISTINCT removed.source, date_trunc('hour', removed.timestamp) AS hour FROM removed) AS emptied
    WHERE counts.source = emptied.source AND counts.hour = emptied.hour AND counts.event_count = 0;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.count_updated_events() IS
  'Trigger: moves the events that an UPDATE gave another source or hour in the hourly counts';

REVOKE ALL ON FUNCTION public.count_updated_events() FROM PUBLIC;

-- TRUNCATE, because a DELETE would show an older snapshot the counts of events
-- that it no longer sees.
CREATE FUNCTION public.truncate_hourly_counts()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  TRUNCATE public.hourly_counts;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.truncate_hourly_counts() IS 'Trigger: forgets the hourly counts when the events are truncated';

REVOKE ALL ON FUNCTION public.truncate_hourly_counts() FROM PUBLIC;

CREATE FUNCTION public.check_hourly_counts()
RETURNS TABLE (source text, hour timestamptz, stored bigint, counted bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT source, hour, coalesce(actual.event_count, 0), coalesce(counts.event_count, 0)
  FROM (
    SELECT e.source, date_trunc('hour', e.timestamp) AS hour, count(*) AS event_count
    FROM public.events AS e
    GROUP BY 1, 2
  ) AS actual
  FULL JOIN public.hourly_counts AS counts USING (source, hour)
  WHERE actual.event_count IS DISTINCT FROM counts.event_count
  ORDER BY source COLLATE "C", hour;
$$;

COMMENT ON FUNCTION public.check_hourly_counts() IS
  'Where the hourly counts are wrong: how many events are stored, and how many the counts say; no rows when all is right';

REVOKE ALL ON FUNCTION public.check_hourly_counts() FROM PUBLIC;

-- The lock comes first, and what follows sees what was committed until then: at
-- READ COMMITTED, that is, which the caller sees to. No TRUNCATE, which would show
-- a reader with an older snapshot no counts at all.
CREATE FUNCTION public.rebuild_hourly_counts()
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the hourly counts are rebuilt at READ COMMITTED only'
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  LOCK TABLE public.events IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM public.hourly_counts;
  INSERT INTO public.hourly_counts (source, hour, event_count)
  SELECT e.source, date_trunc('hour', e.timestamp), count(*)
  FROM public.events AS e
  GROUP BY 1, 2
  ORDER BY 2, 1;
  RETURN (SELECT coalesce(sum(event_count), 0) FROM public.hourly_counts);
END
$$;

COMMENT ON FUNCTION public.rebuild_hourly_counts() IS
  'Makes the hourly counts anew from the events, while nothing can be stored, and returns the number of events';

REVOKE ALL ON FUNCTION public.rebuild_hourly_counts() FROM PUBLIC;

DO $$
BEGIN
  PERFORM public.rebuild_hourly_counts();
END
$$;

CREATE TRIGGER count_inserted
  AFTER INSERT ON public.events
  REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION public.count_inserted_events();

CREATE TRIGGER count_updated
  AFTER UPDATE ON public.events
  REFERENCING OLD TABLE AS removed NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION public.count_updated_events();

CREATE TRIGGER count_deleted
  AFTER DELETE ON public.events
  REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION public.count_deleted_events();

CREATE TRIGGER truncate_counts
  AFTER TRUNCATE ON public.events
  FOR EACH STATEMENT EXECUTE FUNCTION public.truncate_hourly_counts();

-- STABLE: whatever it runs sees the caller's snapshot, so that the counts and the
-- events of the partial hour are of one instant. With the settings below each
-- statement walks an index in the order of the answer, in one plan that is made
-- once, whatever the statistics say and whatever is asked.
CREATE OR REPLACE FUNCTION public.get_hourly_aggregates(days_back integer DEFAULT 7, source_filter text DEFAULT NULL)
RETURNS TABLE (source text, date date, hour integer, event_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  window_start CONSTANT timestamptz := now() - make_interval(days => days_back);
  first_hour CONSTANT timestamptz := date_trunc('hour', window_start);
  second_hour CONSTANT timestamptz := first_hour + interval '1 hour';
BEGIN
  -- TRUNCATE locks the events before the counts; in the other order the two could
  -- wait for each other.
  PERFORM FROM public.events LIMIT 0;

  IF source_filter IS NULL THEN
    RETURN QUERY
    SELECT counts.source, counts.date, counts.hour_of_day, counts.event_count
    FROM public.hourly_counts AS counts
    WHERE counts.hour >= second_hour
    ORDER BY counts.hour DESC, counts.source;
  ELSE
    RETURN QUERY
    SELECT counts.source, counts.date, counts.hour_of_day, counts.event_count
    FROM public.hourly_counts AS counts
    WHERE counts.source = source_filter AND counts.hour >= second_hour
    ORDER BY counts.hour DESC;
  END IF;

  RETURN QUERY
  SELECT
    e.source,
    (first_hour AT TIME ZONE 'UTC')::date,
    extract(hour FROM first_hour AT TIME ZONE 'UTC')::integer,
    count(*)
  FROM public.events AS e
  WHERE e.timestamp >= window_start
    AND e.timestamp < second_hour
    AND (source_filter IS NULL OR e.source = source_filter)
  GROUP BY e.source
  ORDER BY e.source;
END
$$;

COMMENT ON FUNCTION public.get_hourly_aggregates(integer, text) IS
  'Events counted by source and UTC hour from now() - days_back days on, of one source or (NULL) of all; newest hour first, then by source in byte order';

RESET ROLE;
