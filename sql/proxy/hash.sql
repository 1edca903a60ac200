-- Where a source is, on the router and its shards. This definition must never change: the last four
-- bytes of the MD5 of its name in UTF-8, of which PL/Proxy takes the lowest bits. So in twice as
-- many shards a source of shard K is in K or K + N. Without a setting or a volatile part, so that
-- PostgreSQL inlines it.
CREATE OR REPLACE FUNCTION proxy.hash(source text)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || right(pg_catalog.md5(coalesce(source, '')), 8))::bit(32)::integer $$;
COMMENT ON FUNCTION proxy.hash(text) IS 'The hash of a source''s name whose lowest bits are the number of its shard';
