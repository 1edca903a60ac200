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

-- One lock for all sources, so that keys may be added in any order. A key that exists
-- gets its own slot again, so that the primary key (or ON CONFLICT) reports it.
CREATE FUNCTION public.assign_monitor_key_slot()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock('public.monitor_keys'::regclass::oid::bigint);

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

CREATE TRIGGER notify_changed
  AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.monitor_keys
  FOR EACH STATEMENT EXECUTE FUNCTION public.notify_changed();

CREATE FUNCTION public.list_monitor_keys()
RETURNS TABLE (source text, public_key bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT k.source, k.public_key
  FROM public.monitor_keys AS k
  ORDER BY k.source COLLATE "C", k.slot;
$$;

COMMENT ON FUNCTION public.list_monitor_keys() IS 'Returns every registered public key and its source';

REVOKE ALL ON FUNCTION public.list_monitor_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.list_monitor_keys() TO steep_ingest;

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

CREATE TRIGGER notify_changed
  AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.access_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION public.notify_changed();

-- Sorted and without repetitions, so that equal scopes are equal arrays: the program compares
-- them byte by byte.
CREATE FUNCTION public.list_access_tokens()
RETURNS TABLE (label text, token_sha256 bytea, expires_at timestamptz, names text[], prefixes text[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
  SELECT
    t.label, t.token_sha256, t.expires_at,
    CASE WHEN t.sources IS NOT NULL THEN ARRAY(
      SELECT DISTINCT source COLLATE "C" FROM unnest(t.sources) AS source WHERE source NOT LIKE '%*' ORDER BY 1
    ) END,
    CASE WHEN t.sources IS NOT NULL THEN ARRAY(
      SELECT DISTINCT rtrim(source, '*') COLLATE "C" FROM unnest(t.sources) AS source WHERE source LIKE '%*' ORDER BY 1
    ) END
  FROM public.access_tokens AS t
  ORDER BY t.label COLLATE "C";
$$;

COMMENT ON FUNCTION public.list_access_tokens() IS
  'Returns every token''s digest, of expired ones too: the program checks expiry at each request; and the names and prefixes that limit it, NULL for no limit';

REVOKE ALL ON FUNCTION public.list_access_tokens() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.list_access_tokens() TO steep_query;

RESET ROLE;
