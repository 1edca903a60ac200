-- Prints which migration is being applied, and how far an index is built: PostgreSQL tells this
-- of no other statement. Nothing if none is being applied.
SELECT '-', '-', substr(session.application_name, length('migrate ') + 1)
  || CASE WHEN session.wait_event_type = 'Lock' THEN ', waiting for a lock' ELSE '' END
  || coalesce(', ' || building.phase, '')
  || coalesce(' (' || coalesce(NULLIF(building.blocks_done, 0) * 100 / NULLIF(building.blocks_total, 0),
    building.tuples_done * 100 / NULLIF(building.tuples_total, 0)) || ' %)', '')
FROM pg_stat_activity AS session
LEFT JOIN pg_stat_progress_create_index AS building USING (pid)
WHERE session.datname = current_database() AND session.application_name LIKE 'migrate %'
  AND session.backend_type = 'client backend'
ORDER BY session.wait_event_type IS NOT DISTINCT FROM 'Lock', session.pid
LIMIT 1;
