-- Prints each source's first and newest event, its number of events and of keys, and its bytes:
-- its part of the table of events and its indexes, by the number of events.
-- :json   if set: as a JSON document
--
-- The events are counted from the hourly counts. These also tell the first and the newest hour
-- of each source; each of these hours is read once, for all sources, from the index of times.
-- The shards of a router do the same.
BEGIN;
SET LOCAL timezone = UTC;
SET LOCAL jit = off;
\if :{?is_router}
WITH described AS (
  SELECT source COLLATE "C" AS source, sum(events) AS events, min(first) AS first, max(newest) AS newest, sum(bytes) AS bytes
  FROM proxy.describe_sources() GROUP BY 1
\else
-- TRUNCATE locks the events before the counts; locking in another order could deadlock.
LOCK TABLE public.events IN ACCESS SHARE MODE;
WITH counted AS MATERIALIZED (
  SELECT source, sum(event_count) AS events, min(hour) AS first_hour, max(hour) AS newest_hour
  FROM public.hourly_counts GROUP BY source
), times AS MATERIALIZED (
  SELECT hours.hour, found.source, found.first, found.newest
  FROM (SELECT first_hour AS hour FROM counted UNION SELECT newest_hour FROM counted) AS hours
  CROSS JOIN LATERAL (
    SELECT e.source, min(e.timestamp) AS first, max(e.timestamp) AS newest
    FROM public.events AS e
    WHERE e.timestamp >= hours.hour AND e.timestamp <= hours.hour + interval '59 minutes 59.999999 seconds'
    GROUP BY e.source
  ) AS found
), described AS (
  SELECT counted.source, counted.events, oldest.first, latest.newest,
    round(counted.events * (SELECT pg_total_relation_size('public.events')) / sum(counted.events) OVER ()) AS bytes
  FROM counted
  LEFT JOIN times AS oldest ON oldest.source = counted.source AND oldest.hour = counted.first_hour
  LEFT JOIN times AS latest ON latest.source = counted.source AND latest.hour = counted.newest_hour
\endif
), keys AS (
  SELECT source COLLATE "C" AS source, count(*) AS keys FROM public.monitor_keys GROUP BY 1
), listed AS (
  SELECT coalesce(described.source, keys.source) AS source, first, newest,
    NULLIF(to_char(first, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') AS "firstEventAt",
    NULLIF(to_char(newest, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') AS "newestEventAt",
    coalesce(events, 0) AS "eventCount", coalesce(keys.keys, 0) AS "keyCount", coalesce(bytes, 0) AS bytes
  FROM described
  FULL JOIN keys ON keys.source = described.source
)
\if :{?json}
SELECT json_build_object('sources', coalesce(json_agg(entry ORDER BY source), '[]'))
FROM (SELECT source, "firstEventAt", "newestEventAt", "eventCount", "keyCount", bytes FROM listed) AS entry;
\else
SELECT regexp_replace(source, '[[:cntrl:]]', '?', 'g'), coalesce("firstEventAt", first::text, '-'),
  coalesce("newestEventAt", newest::text, '-'), "eventCount", "keyCount", bytes
FROM listed
ORDER BY source;
\endif
COMMIT;
