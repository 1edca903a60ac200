-- Prints each token's label, times of creation and expiry, and whether it has expired.
SELECT label,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       coalesce(to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'never'),
       CASE WHEN expires_at <= now() THEN 'expired' ELSE 'live' END
FROM public.access_tokens
ORDER BY label COLLATE "C";
