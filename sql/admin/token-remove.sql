-- Removes a token; prints nothing if there is none.
-- :label   the token's label
DELETE FROM public.access_tokens WHERE label = :'label' RETURNING 'removed';
