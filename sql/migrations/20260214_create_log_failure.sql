-- How a failed request is found in this server's log. What the programs' roles
-- have it say of an error is little, or nothing, as errors quote data; the id of
-- the request and the SQLSTATE say where to look on and quote nothing.

SET ROLE steep_owner;

-- LOG is above what steep_ingest's log_min_messages leaves out.
CREATE FUNCTION public.log_failure(request_id text, code text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  RAISE LOG 'request % failed with SQLSTATE %',
    left(regexp_replace(request_id, '[^0-9A-Za-z-]', '', 'g'), 64),
    left(regexp_replace(code, '[^0-9A-Z]', '', 'g'), 5);
END
$$;

COMMENT ON FUNCTION public.log_failure(text, text) IS
  'Writes a line with the id of a request and the SQLSTATE that one of its statements failed with to the server''s log';

REVOKE ALL ON FUNCTION public.log_failure(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.log_failure(text, text) TO steep_ingest, steep_query;

RESET ROLE;
