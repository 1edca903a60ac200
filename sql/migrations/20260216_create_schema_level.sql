-- The migration level, for the programs: they say in their logs where it is not the
-- one that they were made for.

SET ROLE steep_owner;

CREATE FUNCTION public.schema_level()
RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  RETURN (SELECT max(name COLLATE "C") FROM public.schema_migrations);
END
$$;

COMMENT ON FUNCTION public.schema_level() IS 'The name of the newest migration that this database has had';

REVOKE ALL ON FUNCTION public.schema_level() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.schema_level() TO steep_ingest, steep_query;

RESET ROLE;
