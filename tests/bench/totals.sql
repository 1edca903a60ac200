-- Fills the hourly counts with a number of sources over the 720 hours up to now, in order of
-- time and without the events that they count, and measures what reads them: 7 times, in
-- alternating order. Prints a JSON object per measurement.
--
-- psql variable: sources
SET client_min_messages = warning;
TRUNCATE public.hourly_counts;
INSERT INTO public.hourly_counts (source, hour, event_count)
SELECT 'source-' || source, date_trunc('hour', now()) - back * interval '1 hour', 1 + (source * 7919 + back * 104729) % 500
FROM generate_series(719, 0, -1) AS back, generate_series(1, :sources) AS source;
VACUUM (ANALYZE) public.hourly_counts;

CREATE FUNCTION pg_temp.measure(sources integer, side text, statement text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  begun CONSTANT timestamptz := clock_timestamp();
  rows bigint;
  counted bigint;
BEGIN
  EXECUTE 'SELECT count(*), sum(event_count)::bigint FROM ' || statement INTO rows, counted;
  RETURN json_build_object('measure', 'totals', 'sources', sources, 'side', side,
    'ms', round(extract(epoch FROM clock_timestamp() - begun) * 1000, 1), 'rows', rows, 'counted', counted);
END
$$;

SELECT format('SELECT pg_temp.measure(%s, %L, %L)', :sources, side, statement)
FROM generate_series(1, 7) AS repeat, (VALUES
  (1, 'by hour', 'public.get_hourly_totals(30)'),
  (2, 'by source', 'public.get_source_totals(30)'),
  (3, 'all rows', 'public.get_hourly_aggregates(30)'),
  (4, 'a scope of 3', 'public.get_scoped_aggregates(30, NULL, ''{source-1,source-2,source-3}'', ''{}'')')
) AS sides (number, side, statement)
ORDER BY repeat, CASE repeat % 2 WHEN 0 THEN number ELSE -number END \gexec
