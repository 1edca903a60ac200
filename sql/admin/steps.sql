-- Runs a statement again and again until it returns 0, each time in a transaction of its own.
-- Prints how many rows each step changed, as INFO, which steepctl's show_progress reads.
-- It is one command, so a pooler keeps it in one session.
-- steep.step    the statement, which returns a number of rows; set by the file before
-- steep.rows    how many rows it had to change at first. After so many it ends with the first
--               step that is smaller, since a monitor may send faster than steps find nothing
DO $$
DECLARE
  total bigint := 0;
  step bigint;
  largest bigint := 0;
BEGIN
  LOOP
    EXECUTE current_setting('steep.step') INTO STRICT step;
    COMMIT;
    total := total + step;
    RAISE INFO '%', step;
    EXIT WHEN step = 0 OR step < largest AND total >= current_setting('steep.rows')::bigint;
    largest := greatest(largest, step);
  END LOOP;
END
$$;
