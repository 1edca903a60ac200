-- Lets one session at a time rename or erase sources or remove events: two renames at once
-- could each find the new name free. The lock ends with the session; that of a steepctl that
-- was killed, at the end of its step.
DO $$
BEGIN
  PERFORM set_config('lock_timeout', '3s', true);
  PERFORM pg_advisory_lock('public.source_renames'::regclass::oid::bigint);
EXCEPTION WHEN lock_not_available THEN
  RAISE EXCEPTION 'another steepctl is renaming or erasing a source or removing events' USING HINT = 'Wait until it has ended.';
END
$$;
