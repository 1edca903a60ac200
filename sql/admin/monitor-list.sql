-- Prints each monitor's name, key and time of registration.
SELECT source, encode(public_key, 'base64'),
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM public.monitor_keys
ORDER BY source COLLATE "C", created_at, public_key;
