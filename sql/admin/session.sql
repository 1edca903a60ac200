-- The settings of a session of steepctl, run before each of the other files.
SET lock_timeout = '10s';

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
