-- Prints t if there are events of a source.
-- :source   the source
SELECT EXISTS (SELECT FROM public.events WHERE source = :'source');
