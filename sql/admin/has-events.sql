-- Prints t if there are events of a source.
-- :source   the source
\if :{?is_router}
SELECT proxy.has_events(:'source');
\else
SELECT EXISTS (SELECT FROM public.events WHERE source = :'source');
\endif
