-- How a standby knows the age of what it shows. Replayed transactions have a time, but none
-- come while nothing happens, and a standby that is cut off can't tell the two apart: so the
-- primary changes a row every few seconds.

SET ROLE steep_owner;

CREATE TABLE public.heartbeat (
  is_single boolean PRIMARY KEY DEFAULT true CHECK (is_single),
  beat_at timestamptz NOT NULL
);

COMMENT ON TABLE public.heartbeat IS 'The time of the primary, for its standbys: at most one row, see beat()';
COMMENT ON COLUMN public.heartbeat.is_single IS 'Always true: there is one row';
COMMENT ON COLUMN public.heartbeat.beat_at IS 'When the row was changed, by the clock of the primary';

ALTER TABLE public.heartbeat ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.heartbeat FORCE ROW LEVEL SECURITY;

-- Every ingest.fcgi calls it every 5 s; however many there are, the row changes once in 3 s at
-- most. Without a standby or an archive nobody would read it, and an idle database stays idle.
-- It does not wait for a synchronous standby, which would only delay the next one.
CREATE FUNCTION public.beat()
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  IF current_setting('archive_mode') = 'off' AND NOT EXISTS (SELECT FROM pg_stat_get_wal_senders()) THEN
    RETURN;
  END IF;
  PERFORM set_config('synchronous_commit', 'local', true);
  INSERT INTO public.heartbeat AS heart (beat_at) VALUES (clock_timestamp())
  ON CONFLICT (is_single) DO UPDATE SET beat_at = clock_timestamp()
  -- One in the future is of a clock that was set back since.
  WHERE heart.beat_at NOT BETWEEN clock_timestamp() - interval '3 seconds' AND clock_timestamp();
END
$$;

COMMENT ON FUNCTION public.beat() IS
  'Sets the time of the heartbeat, unless it is less than 3 s old, or the server has neither a standby nor an archive';

REVOKE ALL ON FUNCTION public.beat() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.beat() TO steep_ingest;

-- A transaction that was acknowledged before time t has its commit record in front of each one
-- whose time is t or later, since these times are taken before a record is written. So a
-- standby that has replayed the later one shows the earlier one too.
CREATE FUNCTION public.data_time()
RETURNS TABLE (seen_us bigint, age_us bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  seen timestamptz;
BEGIN
  IF NOT pg_is_in_recovery() THEN
    RETURN;
  END IF;
  seen := greatest((SELECT beat_at FROM public.heartbeat), pg_last_xact_replay_timestamp());
  seen_us := extract(epoch FROM seen) * 1000000;
  age_us := extract(epoch FROM clock_timestamp() - seen) * 1000000;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION public.data_time() IS
  'On a standby, a row: the time up to which every later statement sees what was acknowledged, and its age, in microseconds, both NULL if unknown; on the primary, no row';

REVOKE ALL ON FUNCTION public.data_time() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.data_time() TO steep_ingest, steep_query;

RESET ROLE;
