-- Prints each source and hour whose count differs from its number of events, and both. Compares
-- some hours at a time, those of 100,000 counted events, and reports these as INFO, for
-- steepctl's progress. An event and its count change together, so each comparison is exact, even
-- while events are stored.
-- :json   if set: each as a JSON object
SET datestyle = ISO;
SET timezone = UTC;
\set counts public.hourly_counts
\if :{?is_router}
\set counts proxy.count_hours()
\endif
SELECT coalesce(sum(event_count), 0) AS events FROM :counts \gset
\warn prepared :events
\if :{?json}
\set differences 'SELECT row_to_json(difference) FROM (SELECT source, NULLIF(to_char(hour AT TIME ZONE ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS"Z"''), '''') AS hour, stored, counted FROM public.check_hourly_counts(%L, %L)) AS difference'
\else
\set differences 'SELECT source, coalesce(NULLIF(to_char(hour AT TIME ZONE ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS"Z"''), ''''), hour::text), stored, counted FROM public.check_hourly_counts(%L, %L)'
\endif
WITH hours AS (
  SELECT hour, sum(event_count) AS events, ceil(sum(sum(event_count)) OVER (ORDER BY hour) / 100000) AS part
  FROM :counts GROUP BY hour
), parts AS (
  SELECT '-infinity'::timestamptz AS begin_at, 0 AS events
  UNION ALL
  SELECT min(hour), sum(events) FROM hours WHERE hour > '-infinity' GROUP BY part
)
SELECT
  format(:'differences', begin_at, lead(begin_at) OVER (ORDER BY begin_at)),
  format('DO $$BEGIN RAISE INFO %L; END$$', greatest(events, 0)::bigint)
FROM parts
ORDER BY begin_at
\gexec
