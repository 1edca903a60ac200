-- Prints how many events a running events-export.sql has printed, how many are expected, and what
-- they are; nothing if it does not run. A role sees its own sessions.
-- :session    the application_name of the session that exports
-- :expected   how many events are expected
SELECT copying.tuples_processed, :'expected', 'events'
FROM pg_stat_progress_copy AS copying
JOIN pg_stat_activity AS session USING (pid)
WHERE session.application_name = :'session';
