-- Registers a monitor's public key; prints nothing if it is registered already.
-- :name   the monitor
-- :key    32 bytes in base64
INSERT INTO public.monitor_keys (source, public_key)
VALUES (:'name', decode(:'key', 'base64'))
ON CONFLICT (source, public_key) DO NOTHING
RETURNING 'added';
