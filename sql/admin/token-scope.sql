-- Changes a token's scope; prints nothing if there is no such token.
-- :label    the token's label
-- :sources  its new scope, a line each, or empty for all sources
UPDATE public.access_tokens SET sources = string_to_array(NULLIF(:'sources', ''), E'\n')
WHERE label = :'label'
RETURNING 'changed';
