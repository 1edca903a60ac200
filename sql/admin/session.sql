-- The settings of a session of steepctl, run before each of the other files.
-- Sets :is_router on a router of shards, whose tables have no events.
SET lock_timeout = '10s';

SELECT EXISTS (
  SELECT FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
  WHERE nspname = 'proxy' AND proname = 'shards'
) AS is_router \gset
\if :is_router
\else
\unset is_router
\endif

-- psql substitutes values into the statements, so the server must not log these; and
-- steepctl reads the errors in English. For anybody but a superuser the server's own
-- settings apply.
SELECT current_setting('is_superuser') = 'on' AS is_superuser \gset
\if :is_superuser
SET lc_messages = 'C';
SET log_statement = none;
SET log_min_duration_statement = -1;
SET log_min_error_statement = panic;
\endif
