-- Stores a token's digest. Prints "added", or "label" if the label is taken, or "token" and
-- the label that the same token has.
-- :label    the token's label
-- :digest   the token's SHA-256 in hexadecimal
-- :days     days until it expires, or empty for never
-- :sources  its scope, a line each, or empty for all sources
WITH added AS (
  INSERT INTO public.access_tokens (label, token_sha256, expires_at, sources)
  VALUES (:'label', decode(:'digest', 'hex'),
          now() + NULLIF(:'days', '')::integer * interval '24 hours',
          string_to_array(NULLIF(:'sources', ''), E'\n'))
  ON CONFLICT DO NOTHING
  RETURNING 'added'
), existing AS (
  SELECT CASE label WHEN :'label' THEN 'label' ELSE 'token ' || label END
  FROM public.access_tokens
  WHERE label = :'label' OR token_sha256 = decode(:'digest', 'hex')
  ORDER BY label <> :'label'
  LIMIT 1
)
SELECT * FROM added UNION ALL SELECT * FROM existing;
