-- Prints each monitor's name, key and time of registration.
-- :json   if set: as a JSON document
\if :{?json}
SELECT json_build_object('monitors', coalesce(json_agg(monitor ORDER BY source COLLATE "C"), '[]'))
FROM (
  SELECT source, json_agg(json_build_object(
    'publicKey', encode(public_key, 'base64'),
    'createdAt', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  ) ORDER BY created_at, public_key) AS keys
  FROM public.monitor_keys GROUP BY source
) AS monitor;
\else
SELECT source, encode(public_key, 'base64'),
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM public.monitor_keys
ORDER BY source COLLATE "C", created_at, public_key;
\endif
