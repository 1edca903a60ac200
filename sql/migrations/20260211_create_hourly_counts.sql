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
    RAISE INFO 'counting % events: for about % s nothing can be stored, and senders are told to come back (measured: 1 s for each million)',
      stored, ceil(stored * 1.0 / 1000000);
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
COMMENT ON COLUMN public.hourly_counts.event_count IS 'The number of events, less what hourly_count_deltas says; never 0 once a statement has ended';
COMMENT ON COLUMN public.hourly_counts.date IS 'The hour''s date in UTC';
COMMENT ON COLUMN public.hourly_counts.hour_of_day IS 'The hour''s number in its day of UTC, 0 to 23; NULL at infinity';

-- The order of the answer for all sources; the primary key has that for one.
CREATE INDEX idx_hourly_counts_hour ON public.hourly_counts (hour DESC, source);

ALTER TABLE public.hourly_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.hourly_counts FORCE ROW LEVEL SECURITY;

-- A count stays locked until its transaction's commit is on disk, and whoever else
-- stores events of that source and hour is not to wait for it: what is added then
-- stands here, until the next who gets the lock takes it up. With batches of 10
-- events, 8 connections of one source stored 0.51 of what 8 connections of 8 sources
-- did while they waited, and as much since (1.03; PostgreSQL 15 on two cores, 400
-- batches each, medians of 3). A batch that meets nobody pays 0.02 to 0.04 ms more
-- (of 0.4 ms), and one of 1000 events in 700 hours 20 ms instead of 14.
--
-- The table is emptied all the time, and giving its pages back would lock everybody
-- out each time.
CREATE TABLE public.hourly_count_deltas (
  source text COLLATE "C" NOT NULL,
  hour timestamptz NOT NULL,
  event_count bigint NOT NULL
) WITH (vacuum_truncate = off);

COMMENT ON TABLE public.hourly_count_deltas IS
  'Events that are to be added to hourly_counts, of transactions that met another one there; mostly empty';
COMMENT ON COLUMN public.hourly_count_deltas.source IS 'Name of the monitor that sent the events';
COMMENT ON COLUMN public.hourly_count_deltas.hour IS 'When the hour begins; infinity stands for itself';
COMMENT ON COLUMN public.hourly_count_deltas.event_count IS 'How many more events there are than hourly_counts says';

CREATE INDEX idx_hourly_count_deltas_hour ON public.hourly_count_deltas (hour DESC, source);

ALTER TABLE public.hourly_count_deltas ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.hourly_count_deltas FORCE ROW LEVEL SECURITY;

-- For what may not stay beside the counts. Goes through the keys in their order, so
-- that two of them wait for each other and do not deadlock; then all the counts are
-- ours, and the next statement sees what was noted beside them until now. A CHECK
-- (event_count > 0) would refuse a decrease when it is proposed, before ON CONFLICT
-- turns it into an update; this looks at what came of it. Only counts that something
-- bypassed can fall below 0.
CREATE FUNCTION public.change_hourly_counts(sources text[], hours timestamptz[], changes bigint[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  lowest bigint;
BEGIN
  WITH changed AS (
    INSERT INTO public.hourly_counts AS counts (source, hour, event_count)
    SELECT change.source, change.hour, change.event_count
    FROM unnest(sources, hours, changes) AS change (source, hour, event_count)
    ORDER BY change.source COLLATE "C", change.hour
    ON CONFLICT (source, hour) DO UPDATE SET event_count = counts.event_count + excluded.event_count
    RETURNING event_count
  )
  SELECT min(event_count) INTO lowest FROM changed;

  IF EXISTS (SELECT FROM public.hourly_count_deltas) THEN
    WITH folded AS (
      DELETE FROM public.hourly_count_deltas AS delta
      USING unnest(sources, hours) AS change (source, hour)
      WHERE delta.source = change.source AND delta.hour = change.hour
      RETURNING delta.source, delta.hour, delta.event_count
    )
    UPDATE public.hourly_counts AS counts SET event_count = counts.event_count + added.event_count
    FROM (SELECT source, hour, sum(event_count) AS event_count FROM folded GROUP BY 1, 2) AS added
    WHERE counts.source = added.source AND counts.hour = added.hour;

    SELECT min(counts.event_count) INTO lowest
    FROM unnest(sources, hours) AS change (source, hour)
    JOIN public.hourly_counts AS counts USING (source, hour);
  END IF;

  IF lowest < 0 THEN
    RAISE EXCEPTION 'the hourly counts know fewer events than there are'
      USING ERRCODE = 'data_corrupted', HINT = 'Run steepctl counts rebuild.';
  ELSIF lowest = 0 THEN
    DELETE FROM public.hourly_counts AS counts
    USING unnest(sources, hours) AS change (source, hour)
    WHERE counts.source = change.source AND counts.hour = change.hour AND counts.event_count = 0;
  END IF;
END
$$;

COMMENT ON FUNCTION public.change_hourly_counts(text[], timestamptz[], bigint[]) IS
  'Adds to the hourly counts of different sources and hours, waiting for whoever is changing them, with what is noted beside them';

REVOKE ALL ON FUNCTION public.change_hourly_counts(text[], timestamptz[], bigint[]) FROM PUBLIC;

-- Waits for nobody but who is just making the same count, and that in the order of
-- the keys. A count that is locked has the change noted beside it. Who holds the
-- lock, and nobody else, takes up what is noted there, by a statement that begins
-- after the lock was taken: it sees the count that the last holder left, and just
-- the changes which that one did not take up.
CREATE FUNCTION public.count_inserted_events()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  change record;
  has_deltas boolean;
  is_new boolean := false;
BEGIN
  FOR change IN
    SELECT added.source, date_trunc('hour', added.timestamp) AS hour, count(*) AS event_count
    FROM added
    GROUP BY 1, 2
    ORDER BY 1, 2
  LOOP
    SELECT EXISTS (
      SELECT FROM public.hourly_count_deltas AS delta WHERE delta.source = change.source AND delta.hour = change.hour
    )
    INTO has_deltas
    FROM public.hourly_counts AS counts
    WHERE counts.source = change.source AND counts.hour = change.hour
    FOR NO KEY UPDATE SKIP LOCKED;

    IF FOUND THEN
      IF has_deltas THEN
        WITH folded AS (
          DELETE FROM public.hourly_count_deltas AS delta
          WHERE delta.source = change.source AND delta.hour = change.hour
          RETURNING delta.event_count
        )
        SELECT change.event_count + coalesce(sum(folded.event_count), 0) INTO change.event_count FROM folded;
      END IF;
      UPDATE public.hourly_counts AS counts SET event_count = counts.event_count + change.event_count
      WHERE counts.source = change.source AND counts.hour = change.hour;
      CONTINUE;
    END IF;

    -- ON CONFLICT would wait for whoever is changing a count that is there.
    IF NOT EXISTS (
      SELECT FROM public.hourly_counts AS counts WHERE counts.source = change.source AND counts.hour = change.hour
    ) THEN
      INSERT INTO public.hourly_counts (source, hour, event_count)
      VALUES (change.source, change.hour, change.event_count)
      ON CONFLICT (source, hour) DO NOTHING;
      is_new := is_new OR FOUND;
      CONTINUE WHEN FOUND;
    END IF;
    INSERT INTO public.hourly_count_deltas (source, hour, event_count)
    VALUES (change.source, change.hour, change.event_count);
  END LOOP;

  -- An hour's last changes have nobody who comes after them, and would be added by
  -- every query of a month: who begins an hour takes up all that is left over, of any
  -- source. The counts are locked by then, so that this waits for nobody.
  IF is_new THEN
    PERFORM public.change_hourly_counts(array_agg(left_over.source), array_agg(left_over.hour), array_agg(0::bigint))
    FROM (SELECT DISTINCT delta.source, delta.hour FROM public.hourly_count_deltas AS delta) AS left_over
    CROSS JOIN LATERAL (
      SELECT FROM public.hourly_counts AS counts
      WHERE counts.source = left_over.source AND counts.hour = left_over.hour
      FOR NO KEY UPDATE SKIP LOCKED
    ) AS unlocked;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.count_inserted_events() IS
  'Trigger: adds the events that an INSERT stored to the hourly counts, or notes them beside a count that is locked';

REVOKE ALL ON FUNCTION public.count_inserted_events() FROM PUBLIC;

CREATE FUNCTION public.count_deleted_events()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  PERFORM public.change_hourly_counts(array_agg(source), array_agg(hour), array_agg(change))
  FROM (
    SELECT removed.source, date_trunc('hour', removed.timestamp) AS hour, -count(*) AS change
    FROM removed
    GROUP BY 1, 2
  ) AS changes;
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
BEGIN
  PERFORM public.change_hourly_counts(array_agg(source), array_agg(hour), array_agg(change))
  FROM (
    SELECT moved.source, moved.hour, sum(moved.change) AS change
    FROM (
      SELECT removed.source, date_trunc('hour', removed.timestamp) AS hour, -1 AS change FROM removed
      UNION ALL
      SELECT added.source, date_trunc('hour', added.timestamp), 1 FROM added
    ) AS moved
    GROUP BY 1, 2
    HAVING sum(moved.change) <> 0
  ) AS changes;
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
  TRUNCATE public.hourly_counts, public.hourly_count_deltas;
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
  SELECT source, hour, coalesce(actual.event_count, 0), coalesce(counts.event_count, 0)::bigint
  FROM (
    SELECT e.source, date_trunc('hour', e.timestamp) AS hour, count(*) AS event_count
    FROM public.events AS e
    GROUP BY 1, 2
  ) AS actual
  FULL JOIN (
    SELECT counted.source, counted.hour, sum(counted.event_count) AS event_count
    FROM (
      SELECT source, hour, event_count FROM public.hourly_counts
      UNION ALL
      SELECT source, hour, event_count FROM public.hourly_count_deltas
    ) AS counted
    GROUP BY 1, 2
  ) AS counts USING (source, hour)
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
  DELETE FROM public.hourly_count_deltas;
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

  -- Rarely: 7.1 ms of processor time for a month of 10 sources, where it is 4.3 else.
  IF EXISTS (
    SELECT FROM public.hourly_count_deltas AS delta
    WHERE delta.hour >= second_hour AND (source_filter IS NULL OR delta.source = source_filter)
  ) THEN
    -- A DELETE may have taken the count away beside which a change was noted.
    RETURN QUERY
    SELECT
      source,
      coalesce(counts.date, (hour AT TIME ZONE 'UTC')::date),
      coalesce(counts.hour_of_day, extract(hour FROM hour AT TIME ZONE 'UTC')::integer),
      coalesce(counts.event_count, 0) + coalesce(noted.event_count, 0)
    FROM (
      SELECT * FROM public.hourly_counts
      WHERE hour >= second_hour AND (source_filter IS NULL OR source = source_filter)
    ) AS counts
    FULL JOIN (
      SELECT source, hour, sum(event_count)::bigint AS event_count FROM public.hourly_count_deltas
      WHERE hour >= second_hour AND (source_filter IS NULL OR source = source_filter)
      GROUP BY 1, 2
    ) AS noted USING (source, hour)
    ORDER BY hour DESC, source;
  ELSIF source_filter IS NULL THEN
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

  IF source_filter IS NULL THEN
    RETURN QUERY
    SELECT
      e.source,
      (first_hour AT TIME ZONE 'UTC')::date,
      extract(hour FROM first_hour AT TIME ZONE 'UTC')::integer,
      count(*)
    FROM public.events AS e
    WHERE e.timestamp >= window_start AND e.timestamp < second_hour
    GROUP BY e.source
    ORDER BY e.source;
  ELSE
    RETURN QUERY
    SELECT
      source_filter,
      (first_hour AT TIME ZONE 'UTC')::date,
      extract(hour FROM first_hour AT TIME ZONE 'UTC')::integer,
      count(*)
    FROM public.events AS e
    WHERE e.timestamp >= window_start AND e.timestamp < second_hour AND e.source = source_filter
    HAVING count(*) > 0;
  END IF;
END
$$;

COMMENT ON FUNCTION public.get_hourly_aggregates(integer, text) IS
  'Events counted by source and UTC hour from now() - days_back days on, of one source or (NULL) of all; newest hour first, then by source in byte order';

RESET ROLE;
