-- Prints each shard's number, host, port and database.
SELECT number, concat_ws(E'\t', coalesce(host, '-'), coalesce(port, '-'), coalesce(dbname, '-'))
FROM (
  SELECT (regexp_match(option, '^p([0-9]+)='))[1]::integer AS number,
    (regexp_match(option, '[= ]host=([^ ]+)'))[1] AS host,
    (regexp_match(option, '[= ]port=([^ ]+)'))[1] AS port,
    (regexp_match(option, '[= ]dbname=([^ ]+)'))[1] AS dbname
  FROM pg_foreign_server CROSS JOIN LATERAL unnest(srvoptions) AS option
  WHERE srvname = 'steep' AND option ~ '^p[0-9]+='
) AS shard
ORDER BY number;
