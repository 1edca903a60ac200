-- Prepares steps, and then runs a statement again and again until it returns 0, each time in a
-- transaction of its own. Reports as INFO, which steepctl's read_report reads, what was prepared
-- and how many rows each step changed.
--
-- All of it is one command, with its values in its text, because a pooler may give each command
-- another session, with the settings of an earlier steepctl.
--
-- The lock lets one steepctl at a time rename or erase sources or remove events: two renames at
-- once could each find the new name free. This command releases it, as a pooler keeps the session;
-- if steepctl is killed, the session ends after its step, and the lock with it.
--
-- :begin   a statement that prepares the steps, and returns one text: how many rows there are to
--          change, and more words. After so many rows this ends with the first step that is
--          smaller, since a monitor may send faster than steps find nothing
-- :step    the statement of a step, which returns a number of rows
SELECT format('DO %L', format($do$
DECLARE
  prepared text;
  total bigint := 0;
  step bigint;
  largest bigint := 0;
BEGIN
  -- For the transactions after this one, which has begun.
  SET default_transaction_isolation = 'read committed';
  SET default_transaction_read_only = off;
  SET LOCAL lock_timeout = '3s';
  BEGIN
    PERFORM pg_advisory_lock('public.source_renames'::regclass::oid::bigint);
  EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'another steepctl is renaming or erasing a source or removing events' USING HINT = 'Wait until it has ended.';
  END;
  COMMIT;

  LOOP
    SET LOCAL lock_timeout = '10s';
    BEGIN
      IF prepared IS NULL THEN
        EXECUTE %L INTO STRICT prepared;
      ELSE
        EXECUTE %L INTO STRICT step;
      END IF;
    EXCEPTION WHEN OTHERS OR query_canceled THEN
      PERFORM pg_advisory_unlock('public.source_renames'::regclass::oid::bigint);
      RAISE;
    END;
    COMMIT;
    IF step IS NULL THEN
      RAISE INFO 'prepared %%', prepared;
      CONTINUE;
    END IF;
    total := total + step;
    RAISE INFO '%%', step;
    EXIT WHEN step = 0 OR step < largest AND total >= split_part(prepared, ' ', 1)::bigint;
    largest := greatest(largest, step);
  END LOOP;
  PERFORM pg_advisory_unlock('public.source_renames'::regclass::oid::bigint);
END
$do$, :'begin', :'step')) \gexec
