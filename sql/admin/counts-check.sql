-- Prints each source and hour whose count differs from its number of events, and both.
SELECT source, coalesce(NULLIF(to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ''), hour::text),
       stored, counted
FROM public.check_hourly_counts();
