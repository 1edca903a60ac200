-- Deletes the event that steepctl setup sent.
-- :source   its source; its id is evt_ and the source
DELETE FROM public.events WHERE id = 'evt_' || :'source' AND source = :'source';
