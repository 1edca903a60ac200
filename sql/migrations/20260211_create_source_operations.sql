-- Renaming and erasing a source and removing events, in steps: as in retention, the caller
-- runs each as a transaction of its own. For administrators only, so nobody is granted these.
--
-- A batch waits for the end of a step only if it repeats an id of the step, or has events of a
-- source and hour that the step takes from or adds to.

SET ROLE steep_owner;

-- Without a record of it, a rename that is run again, because it was interrupted or because
-- the monitor has sent more, could not be told from one that merges two sources by mistake.
CREATE TABLE public.source_renames (
  old_source text COLLATE "C" NOT NULL,
  new_source text COLLATE "C" NOT NULL,
  begun_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (old_source, new_source),
  CHECK (old_source <> new_source)
);

COMMENT ON TABLE public.source_renames IS 'The renames of sources that were begun, so that they can be run again';
COMMENT ON COLUMN public.source_renames.old_source IS 'The source whose events are moved';
COMMENT ON COLUMN public.source_renames.new_source IS 'The source that gets them';
COMMENT ON COLUMN public.source_renames.begun_at IS 'When the rename was first run';

ALTER TABLE public.source_renames ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.source_renames FORCE ROW LEVEL SECURITY;

-- No index begins with the source. The counts tell which hours have events of it, so that only
-- these hours are read from the index of times. A step reads at most 100 of them, because an
-- hour has the entries of all sources. It may find nothing in the hours of begin_at and end_at,
-- which are partial, but every other hour has an event: a step that finds none is the last.
CREATE FUNCTION public.find_source_events(source_name text, begin_at timestamptz, end_at timestamptz, max_rows integer)
RETURNS tid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
BEGIN
  RETURN ARRAY(
    SELECT found.ctid
    FROM (
      SELECT counts.hour
      FROM public.hourly_counts AS counts
      WHERE counts.source = source_name
        AND (begin_at IS NULL OR counts.hour >= date_trunc('hour', begin_at))
        AND (end_at IS NULL OR counts.hour < end_at)
      ORDER BY counts.hour
      LIMIT 100
    ) AS hours
    CROSS JOIN LATERAL (
      SELECT e.ctid
      FROM public.events AS e
      WHERE e.source = source_name
        -- To the hour's last microsecond, so that infinity, which is an hour by itself, is in it.
        AND e.timestamp >= hours.hour AND e.timestamp <= hours.hour + interval '59 minutes 59.999999 seconds'
        AND (begin_at IS NULL OR e.timestamp >= begin_at)
        AND (end_at IS NULL OR e.timestamp < end_at)
    ) AS found
    LIMIT max_rows
  );
END
$$;

COMMENT ON FUNCTION public.find_source_events(text, timestamptz, timestamptz, integer) IS
  'Returns where events of a source are stored, from begin_at until before end_at (NULL: no limit), the oldest hours first, at most max_rows; none only if there are none';

REVOKE ALL ON FUNCTION public.find_source_events(text, timestamptz, timestamptz, integer) FROM PUBLIC;

-- The lock is that of prune_events: of two callers that find the same rows, the second would
-- wait for the first, find them gone, and report that nothing is left. It precedes the search,
-- which must not see what the holder is about to change.
CREATE FUNCTION public.remove_events(
  source_name text, begin_at timestamptz DEFAULT NULL, end_at timestamptz DEFAULT NULL, max_rows integer DEFAULT 10000
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  removed bigint;
BEGIN
  IF max_rows IS NULL OR max_rows < 1 THEN
    RAISE EXCEPTION 'max_rows must be at least 1' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock('public.events'::regclass::oid::bigint);

  IF source_name IS NULL THEN
    DELETE FROM public.events
    WHERE ctid = ANY (ARRAY(
      SELECT e.ctid FROM public.events AS e
      WHERE e.timestamp >= coalesce(begin_at, '-infinity') AND (end_at IS NULL OR e.timestamp < end_at)
      ORDER BY e.timestamp
      LIMIT max_rows
    ));
  ELSE
    DELETE FROM public.events
    WHERE ctid = ANY (public.find_source_events(source_name, begin_at, end_at, max_rows));
  END IF;
  GET DIAGNOSTICS removed = ROW_COUNT;
  RETURN removed;
END
$$;

COMMENT ON FUNCTION public.remove_events(text, timestamptz, timestamptz, integer) IS
  'Deletes events of a source, or of all (NULL), from begin_at until before end_at (NULL: no limit), at most max_rows of them, and returns how many; call it, each time in a new transaction, until it returns 0';

REVOKE ALL ON FUNCTION public.remove_events(text, timestamptz, timestamptz, integer) FROM PUBLIC;

-- Half as many rows as a deletion takes, since each gets a new version and two index entries.
CREATE FUNCTION public.move_events(old_source text, new_source text, max_rows integer DEFAULT 5000)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  moved bigint;
BEGIN
  IF (old_source <> new_source) IS NOT TRUE OR max_rows IS NULL OR max_rows < 1 THEN
    RAISE EXCEPTION 'old_source and new_source must differ, and max_rows be at least 1'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock('public.events'::regclass::oid::bigint);

  UPDATE public.events SET source = new_source
  WHERE ctid = ANY (public.find_source_events(old_source, NULL, NULL, max_rows));
  GET DIAGNOSTICS moved = ROW_COUNT;
  RETURN moved;
END
$$;

COMMENT ON FUNCTION public.move_events(text, text, integer) IS
  'Gives events of a source to another, the oldest hours first, at most max_rows of them, and returns how many; call it, each time in a new transaction, until it returns 0';

REVOKE ALL ON FUNCTION public.move_events(text, text, integer) FROM PUBLIC;

-- A function, so that a router of shards can ask them instead (sql/proxy/).
CREATE FUNCTION public.count_source(source_name text, OUT events bigint, OUT hours bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  SELECT coalesce(sum(counts.event_count), 0), count(*) INTO events, hours
  FROM public.hourly_counts AS counts WHERE counts.source = source_name;
END
$$;

COMMENT ON FUNCTION public.count_source(text) IS 'Returns how many events and hourly counts a source has';

REVOKE ALL ON FUNCTION public.count_source(text) FROM PUBLIC;

-- The keys first: a monitor that is already set to the new name may send at once. The old
-- source keeps its own, since a monitor drops a batch that is refused.
--
-- A token whose scope names the old source shall not lose sight of it, so it gets the new name,
-- once: what an administrator then takes away stays away. It gets none that already belongs to
-- another, by events or by a key, since it would see the other's data; nor one with *, which in
-- a scope would be the beginning of others.
CREATE FUNCTION public.begin_rename(
  old_name text, new_name text, is_merge boolean DEFAULT false, OUT keys bigint, OUT labels text[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  is_begun CONSTANT boolean := EXISTS (
    SELECT FROM public.source_renames WHERE old_source = old_name AND new_source = new_name
  );
  has_events CONSTANT boolean := (SELECT hours > 0 FROM public.count_source(new_name));
  has_other_key CONSTANT boolean := EXISTS (
    SELECT public_key FROM public.monitor_keys WHERE source = new_name
    EXCEPT
    SELECT public_key FROM public.monitor_keys WHERE source = old_name
  );
BEGIN
  IF (new_name COLLATE "C" ~ '^[!-~]([ -~]{0,253}[!-~])?$') IS NOT TRUE THEN
    RAISE EXCEPTION 'a monitor''s name must be printable ASCII without a space at either end'
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF (old_name <> new_name) IS NOT TRUE THEN
    RAISE EXCEPTION 'a source cannot be renamed to itself' USING ERRCODE = 'invalid_parameter_value';
  ELSIF NOT is_begun
    AND (SELECT hours = 0 FROM public.count_source(old_name))
    AND NOT EXISTS (SELECT FROM public.monitor_keys WHERE source = old_name)
  THEN
    RAISE EXCEPTION 'there is no source %', old_name USING ERRCODE = 'no_data_found';
  ELSIF has_events AND NOT is_begun AND NOT coalesce(is_merge, false) THEN
    RAISE EXCEPTION '% has events already', new_name
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'To add those of the other source, use --merge.';
  END IF;

  INSERT INTO public.monitor_keys (source, public_key)
  SELECT new_name, public_key FROM public.monitor_keys WHERE source = old_name ORDER BY slot
  ON CONFLICT (source, public_key) DO NOTHING;
  GET DIAGNOSTICS keys = ROW_COUNT;

  labels := '{}';
  IF NOT (is_begun OR has_events OR has_other_key OR new_name LIKE '%*%' OR old_name LIKE '%*') THEN
    WITH changed AS (
      UPDATE public.access_tokens SET sources = sources || new_name
      WHERE old_name = ANY (sources) AND NOT public.has_source(sources, new_name) AND cardinality(sources) < 500
      RETURNING label
    )
    SELECT coalesce(array_agg(label ORDER BY label COLLATE "C"), '{}') INTO labels FROM changed;
  END IF;

  DELETE FROM public.source_renames WHERE old_source = new_name AND new_source = old_name;
  INSERT INTO public.source_renames (old_source, new_source) VALUES (old_name, new_name) ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION public.begin_rename(text, text, boolean) IS
  'Copies the keys of a source to its new name, adds this to the scopes that name the source, unless it belongs to another, and records the rename; returns how many keys were new and the labels of the tokens; refuses a new name that has events, unless is_merge or the rename was begun before';

REVOKE ALL ON FUNCTION public.begin_rename(text, text, boolean) FROM PUBLIC;

-- Begins with the keys, so that the monitor can send no more. The name leaves the record of the
-- changes too: the programs read all keys again instead.
CREATE FUNCTION public.begin_erase(source_name text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  removed bigint;
BEGIN
  DELETE FROM public.source_renames WHERE source_name IN (old_source, new_source);
  DELETE FROM public.monitor_keys WHERE source = source_name;
  GET DIAGNOSTICS removed = ROW_COUNT;
  UPDATE public.credential_changes SET names = NULL WHERE list = 'monitor_keys' AND source_name = ANY (names);
  RETURN removed;
END
$$;

COMMENT ON FUNCTION public.begin_erase(text) IS
  'Removes the keys of a source and the records of its renames, and returns how many keys there were';

REVOKE ALL ON FUNCTION public.begin_erase(text) FROM PUBLIC;

RESET ROLE;
