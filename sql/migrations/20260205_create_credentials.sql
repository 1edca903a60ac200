-- The monitors' public keys and the readers' access tokens.

SET ROLE steep_owner;

CREATE FUNCTION public.notify_changed()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  PERFORM pg_notify(TG_TABLE_NAME || '_changed', '');
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.notify_changed() IS
  'Trigger: notifies the channel TABLE_changed, with an empty payload; listeners read the table again';

REVOKE ALL ON FUNCTION public.notify_changed() FROM PUBLIC;

-- The programs hold every key and token in memory and read only what changed since their last
-- read. A mark names a state of a list by what led to it, not by its number: after a restore, or
-- on a standby that was promoted without the last changes, a mark that is not in the history is
-- unknown, and everything is read. So is what a history of 1000 changes no longer has.
CREATE TABLE public.credential_changes (
  list text CHECK (list IN ('monitor_keys', 'access_tokens')),
  version bigint GENERATED ALWAYS AS IDENTITY,
  mark uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
  names text[] CHECK (cardinality(names) > 0),
  PRIMARY KEY (list, version)
);

COMMENT ON TABLE public.credential_changes IS 'The last changes of the keys and the tokens: what the programs have to read again';
COMMENT ON COLUMN public.credential_changes.list IS 'The table that was changed';
COMMENT ON COLUMN public.credential_changes.version IS 'The order in which the changes of a table were committed';
COMMENT ON COLUMN public.credential_changes.mark IS 'Names the state of the table after the change';
COMMENT ON COLUMN public.credential_changes.names IS
  'The sources or labels whose rows a statement added, changed or removed; NULL means any';

ALTER TABLE public.credential_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.credential_changes FORCE ROW LEVEL SECURITY;

-- From before a statement changes a row until its transaction has ended, so that the order of
-- the versions is that of the commits: who has seen a version has seen all before it.
CREATE FUNCTION public.serialize_credential_changes()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(TG_RELID::bigint);
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.serialize_credential_changes() IS
  'Trigger: lets one transaction at a time change a table of credentials';

REVOKE ALL ON FUNCTION public.serialize_credential_changes() FROM PUBLIC;

-- Reading more than 1000 names is no quicker than reading everything.
CREATE FUNCTION public.record_credential_change()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  changed text[];
  latest bigint;
BEGIN
  IF TG_OP <> 'TRUNCATE' THEN
    EXECUTE format('SELECT ARRAY(SELECT DISTINCT %I FROM %s LIMIT 1001)', TG_ARGV[0],
      CASE TG_OP WHEN 'INSERT' THEN 'new_rows' WHEN 'DELETE' THEN 'old_rows'
        ELSE '(TABLE old_rows UNION ALL TABLE new_rows) AS rows' END) INTO STRICT changed;
    IF changed = '{}' THEN
      RETURN NULL;
    END IF;
  END IF;

  INSERT INTO public.credential_changes (list, names)
  VALUES (TG_TABLE_NAME, CASE WHEN cardinality(changed) <= 1000 THEN changed END)
  RETURNING version INTO STRICT latest;

  DELETE FROM public.credential_changes WHERE list = TG_TABLE_NAME AND version <= latest - 1000;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.record_credential_change() IS
  'Trigger: records in credential_changes which names, of the column given as argument, a statement changed';

REVOKE ALL ON FUNCTION public.record_credential_change() FROM PUBLIC;

-- This and the functions that list are in SQL, so that the programs can read the credentials even
-- while PL/pgSQL can't be loaded, and say what is wrong.
CREATE FUNCTION public.find_credential_changes(list_name text, since uuid, OUT latest uuid, OUT changed text[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH known AS MATERIALIZED (
    SELECT version FROM public.credential_changes WHERE list = list_name AND mark = since
  ), later AS MATERIALIZED (
    SELECT names FROM public.credential_changes WHERE list = list_name AND version > (SELECT version FROM known)
  ), changed AS MATERIALIZED (
    SELECT DISTINCT name FROM later CROSS JOIN unnest(names) AS name LIMIT 1001
  )
  SELECT
    (SELECT mark FROM public.credential_changes WHERE list = list_name ORDER BY version DESC LIMIT 1),
    CASE
      WHEN EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM later WHERE names IS NULL)
        AND (SELECT count(*) FROM changed) <= 1000
      THEN ARRAY(SELECT name FROM changed)
    END;
$$;

COMMENT ON FUNCTION public.find_credential_changes(text, uuid) IS
  'Returns the mark of the state of a list, and the names that changed since another mark; NULL means any';

REVOKE ALL ON FUNCTION public.find_credential_changes(text, uuid) FROM PUBLIC;

-- The slot makes "at most 8 keys" a constraint, which holds at every isolation level and
-- in a restore. A trigger that counts rows would not.
CREATE TABLE public.monitor_keys (
  source text NOT NULL CHECK (source COLLATE "C" ~ '^[!-~]([ -~]{0,253}[!-~])?$'),
  public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
  created_at timestamptz NOT NULL DEFAULT now(),
  slot smallint NOT NULL CHECK (slot BETWEEN 1 AND 8),
  PRIMARY KEY (source, public_key),
  UNIQUE (source, slot)
);

COMMENT ON TABLE public.monitor_keys IS 'The monitors'' Ed25519 public keys, up to 8 for each';
COMMENT ON COLUMN public.monitor_keys.source IS 'Name of the monitor: printable ASCII without a space at either end';
COMMENT ON COLUMN public.monitor_keys.public_key IS 'The 32 raw bytes of the key';
COMMENT ON COLUMN public.monitor_keys.created_at IS 'When the key was registered';
COMMENT ON COLUMN public.monitor_keys.slot IS 'The key''s number among its source''s keys, 1 to 8; assigned by a trigger';

ALTER TABLE public.monitor_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.monitor_keys FORCE ROW LEVEL SECURITY;

-- Changes are serialized, for all sources, so keys may be added in any order. A key that exists
-- gets its own slot again, so that the primary key (or ON CONFLICT) reports it.
CREATE FUNCTION public.assign_monitor_key_slot()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  SELECT candidate INTO NEW.slot
  FROM generate_series(1, 8) AS candidate
  LEFT JOIN public.monitor_keys AS taken ON taken.source = NEW.source AND taken.slot = candidate
  WHERE taken.slot IS NULL OR taken.public_key = NEW.public_key
  ORDER BY taken.slot, candidate
  LIMIT 1;

  IF NOT FOUND THEN
    RAISE EXCEPTION 'a source has at most 8 public keys'
      USING ERRCODE = 'check_violation', HINT = 'Remove a key that is no longer used.';
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION public.assign_monitor_key_slot() IS
  'Trigger: assigns a key the first free slot of its source, and refuses it if all 8 are taken';

REVOKE ALL ON FUNCTION public.assign_monitor_key_slot() FROM PUBLIC;

CREATE TRIGGER assign_slot
  BEFORE INSERT OR UPDATE OF source, slot ON public.monitor_keys
  FOR EACH ROW EXECUTE FUNCTION public.assign_monitor_key_slot();

-- ALWAYS: also where session_replication_role is replica. A logical replication fires no statement
-- triggers all the same, but for TRUNCATE and its first copy.
CREATE TRIGGER serialize_changes
  BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.monitor_keys
  FOR EACH STATEMENT EXECUTE FUNCTION public.serialize_credential_changes();

CREATE TRIGGER record_insert
  AFTER INSERT ON public.monitor_keys
  REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('source');

CREATE TRIGGER record_update
  AFTER UPDATE ON public.monitor_keys
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('source');

CREATE TRIGGER record_delete
  AFTER DELETE ON public.monitor_keys
  REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('source');

CREATE TRIGGER record_truncate
  AFTER TRUNCATE ON public.monitor_keys
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('source');

ALTER TABLE public.monitor_keys ENABLE ALWAYS TRIGGER serialize_changes;
ALTER TABLE public.monitor_keys ENABLE ALWAYS TRIGGER record_insert;
ALTER TABLE public.monitor_keys ENABLE ALWAYS TRIGGER record_update;
ALTER TABLE public.monitor_keys ENABLE ALWAYS TRIGGER record_delete;
ALTER TABLE public.monitor_keys ENABLE ALWAYS TRIGGER record_truncate;

CREATE TRIGGER notify_changed
  AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.monitor_keys
  FOR EACH STATEMENT EXECUTE FUNCTION public.notify_changed();

-- Without since, all rows follow the mark. With it, the rows of each name that changed since
-- then, or one without a key for a name that has none any more; or nothing, not even a mark, if
-- everything has to be read.
CREATE FUNCTION public.list_monitor_keys(since uuid DEFAULT NULL)
RETURNS TABLE (mark uuid, source text, public_key bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  WITH change AS MATERIALIZED (
    SELECT latest, changed FROM public.find_credential_changes('monitor_keys', since)
  )
  SELECT latest, NULL::text, NULL::bytea FROM change WHERE since IS NULL OR changed IS NOT NULL
  UNION ALL (
    SELECT NULL, k.source, k.public_key FROM public.monitor_keys AS k
    WHERE since IS NULL
    ORDER BY k.source COLLATE "C", k.slot
  )
  UNION ALL (
    SELECT NULL, name, k.public_key
    FROM change CROSS JOIN unnest(changed) AS name LEFT JOIN public.monitor_keys AS k ON k.source = name
    WHERE since IS NOT NULL
    ORDER BY name COLLATE "C", k.slot
  );
$$;

COMMENT ON FUNCTION public.list_monitor_keys(uuid) IS
  'Returns a row with a mark of the list''s state, then every public key and its source; or for a mark that it returned before, the keys of each source that changed since, NULL for a source without keys, or no row if that is not known';

REVOKE ALL ON FUNCTION public.list_monitor_keys(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.list_monitor_keys(uuid) TO steep_ingest;

-- The limit bounds what query.fcgi keeps in memory of each token and sends with each of its
-- queries, to 125 KiB, which is also less than an argument of psql may have. A name with * in
-- the middle would look like a pattern, and * alone like no limit.
CREATE FUNCTION public.is_scope(sources text[])
RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT coalesce(array_ndims(sources) = 1 AND cardinality(sources) <= 500, false)
    AND NOT EXISTS (
      SELECT FROM unnest(sources) AS source
      WHERE (source COLLATE "C" ~ '^[!-~]([ -~]{0,253}[!-~])?$' AND source ~ '^[^*]+[*]?$') IS NOT TRUE
    );
$$;

COMMENT ON FUNCTION public.is_scope(text[]) IS
  'Whether these are 1 to 500 names of monitors, or beginnings of names that end with *';

REVOKE ALL ON FUNCTION public.is_scope(text[]) FROM PUBLIC;

CREATE FUNCTION public.has_source(scope text[], source_name text)
RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT EXISTS (
    SELECT FROM unnest(scope) AS source
    WHERE CASE WHEN source LIKE '%*' THEN starts_with(source_name, rtrim(source, '*')) ELSE source_name = source END
  );
$$;

COMMENT ON FUNCTION public.has_source(text[], text) IS 'Whether a token of this scope, which is not NULL, sees a source';

REVOKE ALL ON FUNCTION public.has_source(text[], text) FROM PUBLIC;

CREATE TABLE public.access_tokens (
  label text PRIMARY KEY CHECK (label COLLATE "C" ~ '^[A-Za-z0-9._-]{1,64}$'),
  token_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz CHECK (isfinite(expires_at)),
  sources text[] CHECK (sources IS NULL OR public.is_scope(sources))
);

COMMENT ON TABLE public.access_tokens IS 'The tokens that may read; the tokens themselves are not stored';
COMMENT ON COLUMN public.access_tokens.label IS 'The token''s name';
COMMENT ON COLUMN public.access_tokens.token_sha256 IS 'SHA-256 of the token''s characters';
COMMENT ON COLUMN public.access_tokens.created_at IS 'When the token was created';
COMMENT ON COLUMN public.access_tokens.expires_at IS 'When the token expires; NULL means never';
COMMENT ON COLUMN public.access_tokens.sources IS
  'The token''s scope: the sources that it sees, by name or by the beginning of their names and *; NULL means all';

ALTER TABLE public.access_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.access_tokens FORCE ROW LEVEL SECURITY;

CREATE TRIGGER serialize_changes
  BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.access_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION public.serialize_credential_changes();

CREATE TRIGGER record_insert
  AFTER INSERT ON public.access_tokens
  REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('label');

CREATE TRIGGER record_update
  AFTER UPDATE ON public.access_tokens
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('label');

CREATE TRIGGER record_delete
  AFTER DELETE ON public.access_tokens
  REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('label');

CREATE TRIGGER record_truncate
  AFTER TRUNCATE ON public.access_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION public.record_credential_change('label');

ALTER TABLE public.access_tokens ENABLE ALWAYS TRIGGER serialize_changes;
ALTER TABLE public.access_tokens ENABLE ALWAYS TRIGGER record_insert;
ALTER TABLE public.access_tokens ENABLE ALWAYS TRIGGER record_update;
ALTER TABLE public.access_tokens ENABLE ALWAYS TRIGGER record_delete;
ALTER TABLE public.access_tokens ENABLE ALWAYS TRIGGER record_truncate;

CREATE TRIGGER notify_changed
  AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.access_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION public.notify_changed();

-- As list_monitor_keys. Scopes are sorted and without repetitions, so that equal scopes are equal
-- arrays: the program compares them byte by byte.
CREATE FUNCTION public.list_access_tokens(since uuid DEFAULT NULL)
RETURNS TABLE (mark uuid, label text, token_sha256 bytea, expires_at timestamptz, names text[], prefixes text[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  WITH change AS MATERIALIZED (
    SELECT latest, changed FROM public.find_credential_changes('access_tokens', since)
  ), listed AS (
    SELECT t.label FROM public.access_tokens AS t WHERE since IS NULL
    UNION ALL
    SELECT name FROM change CROSS JOIN unnest(changed) AS name WHERE since IS NOT NULL
  )
  SELECT latest, NULL::text, NULL::bytea, NULL::timestamptz, NULL::text[], NULL::text[]
  FROM change
  WHERE since IS NULL OR changed IS NOT NULL
  UNION ALL (
    SELECT
      NULL, l.label, t.token_sha256, t.expires_at,
      CASE WHEN t.sources IS NOT NULL THEN ARRAY(
        SELECT DISTINCT source COLLATE "C" FROM unnest(t.sources) AS source WHERE source NOT LIKE '%*' ORDER BY 1
      ) END,
      CASE WHEN t.sources IS NOT NULL THEN ARRAY(
        SELECT DISTINCT rtrim(source, '*') COLLATE "C" FROM unnest(t.sources) AS source WHERE source LIKE '%*' ORDER BY 1
      ) END
    FROM listed AS l LEFT JOIN public.access_tokens AS t USING (label)
    ORDER BY l.label COLLATE "C"
  );
$$;

COMMENT ON FUNCTION public.list_access_tokens(uuid) IS
  'Returns a row with a mark of the list''s state, then every token''s digest, of expired ones too: the program checks expiry at each request; and the names and prefixes that limit it, NULL for no limit; or for a mark that it returned before, each token that changed since, a NULL digest for one that was removed, or no row if that is not known';

REVOKE ALL ON FUNCTION public.list_access_tokens(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.list_access_tokens(uuid) TO steep_query;

RESET ROLE;
