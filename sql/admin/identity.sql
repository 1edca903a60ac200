-- Prints which running database this is: another has another line, also a copy of it.
SELECT system_identifier, pg_database.oid, extract(epoch FROM pg_postmaster_start_time())
FROM pg_control_system(), pg_database WHERE datname = current_database();
