-- What steepctl status reports of the events on a router: what is wrong with the shards, or else
-- what status.sql reports of one database. A number without that of a shard would be too small.
SELECT coalesce(string_agg(fault, E'\n'), '') AS faults FROM proxy.check_shards() AS fault \gset
SELECT 'critical', fault FROM string_to_table(NULLIF(:'faults', ''), E'\n') AS fault;
SELECT :'faults' = '' AS is_right \gset
\if :is_right
SELECT 'ok', format('Shards: %s.', proxy.shards());

WITH reported AS MATERIALIZED (
  SELECT source COLLATE "C" AS source, sum(events) AS events, max(newest) AS newest, sum(ahead) AS ahead
  FROM proxy.report_sources() GROUP BY 1
), keys AS (
  SELECT source COLLATE "C" AS source, count(*) AS count FROM public.monitor_keys GROUP BY 1
), sentences (part, source, level, sentence) AS (
  SELECT 1, '', 'ok', format('Events: %s.', coalesce(sum(events), 0)) FROM reported
  UNION ALL
  SELECT 2, source, 'ok', format('Monitor %s: %s, %s.',
    regexp_replace(source, '[[:cntrl:]]', '?', 'g'),
    coalesce('newest event ' || coalesce(NULLIF(to_char(newest, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ''), newest::text)
      || CASE WHEN newest > now() + interval '1 hour' THEN ' (in the future: its clock is wrong)' ELSE '' END,
      'no events yet'),
    CASE coalesce(keys.count, 0) WHEN 0 THEN 'not registered' WHEN 1 THEN '1 key' ELSE keys.count || ' keys' END)
  FROM reported FULL JOIN keys USING (source)
  UNION ALL
  SELECT 3, source, 'warning', format('Monitor %s has events more than a day in the future: %s; every answer includes them until they are deleted.',
    regexp_replace(source, '[[:cntrl:]]', '?', 'g'), ahead)
  FROM reported WHERE ahead > 0
)
SELECT level, sentence FROM sentences ORDER BY part, source COLLATE "C";
\endif
