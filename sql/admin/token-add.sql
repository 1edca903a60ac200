-- Stores a token's digest; prints nothing if the label is taken.
-- :label    the token's label
-- :digest   the token's SHA-256 in hexadecimal
-- :days     days until it expires, or empty for never
INSERT INTO public.access_tokens (label, token_sha256, expires_at)
VALUES (:'label', decode(:'digest', 'hex'),
        now() + NULLIF(:'days', '')::integer * interval '24 hours')
ON CONFLICT (label) DO NOTHING
RETURNING 'added';
