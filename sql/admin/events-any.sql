-- Prints t if there is any event.
SELECT EXISTS (SELECT FROM public.events);
