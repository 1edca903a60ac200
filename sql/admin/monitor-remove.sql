-- Removes a monitor's keys; prints how many.
-- :name   the monitor
-- :key    32 bytes in base64, or empty for all of its keys
WITH removed AS (
  DELETE FROM public.monitor_keys
  WHERE source = :'name' AND (:'key' = '' OR public_key = decode(:'key', 'base64'))
  RETURNING 1
)
SELECT count(*) FROM removed;
