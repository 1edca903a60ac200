-- Computes the hourly counts again; prints the number of events counted.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT public.rebuild_hourly_counts();
COMMIT;
