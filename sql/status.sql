-- What steepctl status reports of the database: a level (ok, warning, critical) and a
-- sentence on each line. Only reads, so it works on a standby.
-- :known   this version's migrations, a line "SHA256  NAME" each
-- :access  access.sql
-- :connections  see admin/connections.sql

SET datestyle = ISO;
SET timezone = UTC;
-- An error instead of no rows, for a role that may read the tables but that RLS restricts.
SET row_security = off;
-- Find the events by their index, whatever the statistics say.
SET enable_seqscan = off;
SET enable_bitmapscan = off;

SELECT 'ok', format('Database %s: PostgreSQL %s.', current_database(), current_setting('server_version'));
SELECT 'critical', format('PostgreSQL %s is too old; 15 or newer is required.', current_setting('server_version'))
WHERE current_setting('server_version_num')::integer < 150000;
SELECT 'warning', 'The database server is a standby, which stores no events.' WHERE pg_is_in_recovery();
\ir admin/connections.sql

SELECT to_regclass('public.schema_migrations') IS NOT NULL AS is_migrated \gset
\if :is_migrated
\else
SELECT 'critical', 'The database is not migrated; run steepctl migrate.';
\quit
\endif

WITH ours AS (
  SELECT split_part(line, '  ', 1) AS sha256, split_part(line, '  ', 2) AS name
  FROM regexp_split_to_table(:'known', E'\n') AS line
), compared AS (
  SELECT name, ours.sha256 AS ours, recorded.sha256 AS recorded
  FROM ours FULL JOIN public.schema_migrations AS recorded USING (name)
), problems (level, sentence) AS (
  SELECT 'critical', format('The database has %s, a migration of another version.', max(name))
  FROM compared WHERE ours IS NULL HAVING count(*) > 0
  UNION ALL
  SELECT 'warning', format('Pending migrations: %s; run steepctl migrate.', count(*))
  FROM compared WHERE recorded IS NULL HAVING count(*) > 0
  UNION ALL
  SELECT 'warning', format('%s has changed since it was applied to the database.', name)
  FROM compared WHERE ours <> recorded
)
SELECT * FROM problems
UNION ALL
SELECT 'ok', format('All migrations are applied: %s, the newest is %s.', count(*), max(name))
FROM public.schema_migrations WHERE NOT EXISTS (SELECT FROM problems);

-- The privileges that the programs' roles need, and that no other role should have. A
-- restore without the roles loses them.
WITH wanted (role, may_login, may_bypass) AS (
  VALUES ('steep_owner', false, true), ('steep_ingest', true, false), ('steep_query', true, false), ('steep_prune', true, false)
), functions (role, signature, migration) AS (
  VALUES
    ('steep_ingest', 'public.bulk_insert_events(jsonb)', '20260203_create_events_table.sql'),
    ('steep_ingest', 'public.bulk_insert_batches(integer[],jsonb[])', '20260203_create_events_table.sql'),
    ('steep_ingest', 'public.list_monitor_keys(uuid)', '20260205_create_credentials.sql'),
    ('steep_query', 'public.list_access_tokens(uuid)', '20260205_create_credentials.sql'),
    ('steep_query', 'public.get_hourly_aggregates(integer,text)', '20260206_create_hourly_counts.sql'),
    ('steep_ingest', 'public.find_invalid_events(text[])', '20260207_create_diagnostics.sql'),
    ('steep_ingest', 'public.count_foreign_ids(jsonb)', '20260207_create_diagnostics.sql'),
    ('steep_ingest', 'public.log_failure(text[],text)', '20260207_create_diagnostics.sql'),
    ('steep_query', 'public.log_failure(text[],text)', '20260207_create_diagnostics.sql'),
    ('steep_ingest', 'public.schema_level()', '20260207_create_diagnostics.sql'),
    ('steep_query', 'public.schema_level()', '20260207_create_diagnostics.sql'),
    ('steep_prune', 'public.prune_events(interval,integer)', '20260208_create_retention.sql'),
    ('steep_prune', 'public.count_old_events(interval)', '20260208_create_retention.sql'),
    ('steep_query', 'public.get_hourly_totals(integer,text,text[],text[])', '20260209_create_totals.sql'),
    ('steep_query', 'public.get_source_totals(integer,text,text[],text[])', '20260209_create_totals.sql'),
    ('steep_query', 'public.get_scoped_aggregates(integer,text,text[],text[])', '20260209_create_totals.sql')
), callable AS (
  -- A function whose migration is pending is not missing.
  SELECT role, signature FROM functions JOIN public.schema_migrations ON name = migration
), present AS (
  SELECT role, may_login, may_bypass, pg_roles.* FROM wanted JOIN pg_catalog.pg_roles ON rolname = role
), definers AS (
  SELECT oid::regprocedure::text AS name, proowner AS owner, coalesce(proacl, acldefault('f', proowner)) AS acl
  FROM pg_catalog.pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
), problems (level, sentence) AS (
  SELECT 'critical', format('Role %s is missing; steepctl roles prints the SQL that creates it.', role)
  FROM wanted WHERE to_regrole(role) IS NULL
  UNION ALL
  SELECT 'critical', format('Role %s cannot log in; run ALTER ROLE %1$s LOGIN.', role)
  FROM present WHERE may_login AND NOT rolcanlogin
  UNION ALL
  SELECT 'critical', format('Role %s lacks BYPASSRLS, so its functions see no rows; run ALTER ROLE %1$s BYPASSRLS.', role)
  FROM present WHERE may_bypass AND NOT rolbypassrls AND NOT rolsuper
  UNION ALL
  SELECT 'warning', format('Role %s has more privileges than its program needs: it is a superuser, or has BYPASSRLS.', role)
  FROM present WHERE rolsuper OR (rolbypassrls AND NOT may_bypass)
  UNION ALL
  SELECT 'critical', format('Role %s cannot connect to the database; run GRANT CONNECT ON DATABASE %I TO %1$s.', role, current_database())
  FROM present WHERE may_login AND NOT has_database_privilege(oid, current_database(), 'CONNECT')
  UNION ALL
  SELECT 'critical', format('Role %s cannot use the schema; run GRANT USAGE ON SCHEMA public TO %1$s.', role)
  FROM present WHERE NOT has_schema_privilege(oid, 'public', 'USAGE')
  UNION ALL
  SELECT DISTINCT 'critical', format('Function %s is missing.', signature)
  FROM callable WHERE to_regprocedure(signature) IS NULL
  UNION ALL
  SELECT 'critical', format('Role %s cannot execute %s; run GRANT EXECUTE ON FUNCTION %2$s TO %1$s.', role, signature)
  FROM callable JOIN present USING (role)
  WHERE NOT has_function_privilege(oid, to_regprocedure(signature), 'EXECUTE')
  UNION ALL
  SELECT 'warning', format('%s; run steepctl migrate.', sentence)
  FROM (:access) AS difference WHERE sentence IS NOT NULL
  UNION ALL
  SELECT 'warning', format('PUBLIC can execute %s; run REVOKE EXECUTE ON FUNCTION %1$s FROM PUBLIC.', name)
  FROM definers, aclexplode(acl)
  WHERE grantee = 0 AND privilege_type = 'EXECUTE' AND owner <> coalesce(to_regrole('steep_owner')::oid, 0)
  UNION ALL
  SELECT 'warning', format('Function %s runs as %s instead of steep_owner.', name, owner::regrole)
  FROM definers WHERE owner <> coalesce(to_regrole('steep_owner')::oid, 0)
)
SELECT * FROM problems
UNION ALL
SELECT 'ok', 'All roles exist and have their grants.' WHERE NOT EXISTS (SELECT FROM problems);

SELECT 'ok', format('Connections of %s: %s.', role, count(pid))
FROM (VALUES ('steep_ingest'), ('steep_query')) AS program (role)
LEFT JOIN pg_catalog.pg_stat_activity ON usename = role AND datname = current_database()
GROUP BY role ORDER BY role;

-- A database with pending migrations may lack these.
SELECT to_regclass('public.hourly_counts') IS NOT NULL AS has_counts,
       to_regclass('public.access_tokens') IS NOT NULL AS has_credentials \gset
\if :{?is_router}
\ir admin/shards-status.sql
\elif :has_counts
-- The events first, in one transaction, because TRUNCATE locks them before the counts: in
-- another order the two could deadlock.
BEGIN READ ONLY;
SELECT FROM public.events LIMIT 0;

SELECT 'ok', format('Events: %s.', coalesce(sum(event_count), 0)) FROM public.hourly_counts;

-- From source to source by the counts' key, then to the newest hour, then to that hour's
-- newest event: a few index pages for each source, however many events are stored. The
-- hour "infinity" ends at infinity.
WITH RECURSIVE counted (source) AS (
  (SELECT source FROM public.hourly_counts ORDER BY source LIMIT 1)
  UNION ALL
  SELECT (SELECT counts.source FROM public.hourly_counts AS counts
          WHERE counts.source > counted.source ORDER BY counts.source LIMIT 1)
  FROM counted WHERE counted.source IS NOT NULL
), keys AS (
  SELECT source, count(*) AS count FROM public.monitor_keys GROUP BY source
), sources (source) AS (
  SELECT source FROM counted WHERE source IS NOT NULL
  UNION
  SELECT source COLLATE "C" FROM keys
)
SELECT 'ok', format('Monitor %s: %s, %s.',
  regexp_replace(sources.source, '[[:cntrl:]]', '?', 'g'),
  coalesce('newest event ' || coalesce(NULLIF(to_char(latest.timestamp, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ''), latest.timestamp::text)
    || CASE WHEN latest.timestamp > now() + interval '1 hour' THEN ' (in the future: its clock is wrong)' ELSE '' END,
    'no events yet'),
  CASE coalesce(keys.count, 0) WHEN 0 THEN 'not registered' WHEN 1 THEN '1 key' ELSE keys.count || ' keys' END)
FROM sources
LEFT JOIN keys ON keys.source COLLATE "C" = sources.source
LEFT JOIN LATERAL (
  SELECT counts.hour FROM public.hourly_counts AS counts
  WHERE counts.source = sources.source ORDER BY counts.hour DESC LIMIT 1
) AS newest ON true
LEFT JOIN LATERAL (
  SELECT stored.timestamp FROM public.events AS stored
  WHERE stored.source = sources.source AND stored.timestamp >= newest.hour AND stored.timestamp <= newest.hour + interval '1 hour'
  ORDER BY stored.timestamp DESC LIMIT 1
) AS latest ON true
ORDER BY sources.source COLLATE "C";

-- Whole hours are added up by their counts; of the hour in which the day ends, the events.
WITH ahead (source, event_count) AS (
  SELECT source, event_count FROM public.hourly_counts
  WHERE hour > now() + interval '24 hours'
  UNION ALL
  SELECT source, 1 FROM public.events
  WHERE timestamp > now() + interval '24 hours'
    AND timestamp < date_trunc('hour', now() + interval '24 hours') + interval '1 hour'
)
SELECT 'warning', format('Monitor %s has events more than a day in the future: %s; every answer includes them until they are deleted.',
  regexp_replace(source, '[[:cntrl:]]', '?', 'g'), sum(event_count))
FROM ahead
GROUP BY source
HAVING sum(event_count) > 0
ORDER BY source COLLATE "C";

COMMIT;
\endif

\if :has_credentials
SELECT 'warning', 'No monitor is registered; run steepctl monitor add, unless all keys are in VIBETEA_PUBLIC_KEYS.'
WHERE NOT EXISTS (SELECT FROM public.monitor_keys);

SELECT
  CASE WHEN expires_at <= now() + interval '7 days' THEN 'warning' ELSE 'ok' END,
  format('Token %s: %s.', label, CASE
    WHEN expires_at IS NULL THEN 'does not expire'
    WHEN expires_at <= now() THEN 'expired at ' || to_char(expires_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    ELSE 'expires at ' || to_char(expires_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  END)
FROM public.access_tokens ORDER BY label COLLATE "C";

SELECT 'warning', 'There is no valid token; run steepctl token add, unless the token is in VIBETEA_SUBSCRIBER_TOKEN.'
WHERE NOT EXISTS (SELECT FROM public.access_tokens WHERE expires_at IS NULL OR expires_at > now());
\endif
