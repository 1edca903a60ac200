-- Prints t if this role may store events and is a superuser, who can keep them out of the
-- server's log; f if it may store them and is none. An error if it may not store them, or if the
-- database is not migrated.
SELECT current_setting('is_superuser') = 'on' FROM public.bulk_insert_events('[]');
