-- Prints each token's label, times of creation and expiry, whether it has expired, and its
-- scope, a field each: * for all sources.
-- :json   if set: as a JSON document
\if :{?json}
SELECT json_build_object('tokens', coalesce(json_agg(token ORDER BY label COLLATE "C"), '[]'))
FROM (
  SELECT label,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "createdAt",
    to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "expiresAt",
    CASE WHEN expires_at <= now() THEN 'expired' ELSE 'live' END AS state,
    sources
  FROM public.access_tokens
) AS token;
\else
SELECT label,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       coalesce(to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'never'),
       CASE WHEN expires_at <= now() THEN 'expired' ELSE 'live' END,
       coalesce(array_to_string(sources, E'\t'), '*')
FROM public.access_tokens
ORDER BY label COLLATE "C";
\endif
