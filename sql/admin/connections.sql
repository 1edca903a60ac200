-- A warning if the programs may open more connections than the server has for them.
-- :connections  how many they may open; empty if it is not known
SELECT 'warning', format('The programs may open %s connections, but the server has %s for them;'
  ' raise max_connections to at least %s, or lower STEEP_CONNECTIONS.', wanted, most - reserved, wanted + reserved)
FROM (
  SELECT NULLIF(:'connections', '')::integer AS wanted, current_setting('max_connections')::integer AS most,
    current_setting('superuser_reserved_connections')::integer
      -- New in PostgreSQL 16.
      + coalesce(current_setting('reserved_connections', true)::integer, 0) AS reserved
) AS server
WHERE wanted > most - reserved;
