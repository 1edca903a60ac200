BEGIN;
SELECT plan(4);

SELECT is(public.schema_level(), (SELECT max(name COLLATE "C") FROM public.schema_migrations), 'it is the newest of what was applied');
INSERT INTO public.schema_migrations (name, sha256) VALUES ('29990101_of_tomorrow.sql', 'x');
SELECT is(public.schema_level(), '29990101_of_tomorrow.sql', '... also where it is not ours');
DELETE FROM public.schema_migrations;
SELECT is(public.schema_level(), NULL, '... and NULL where there is none');
SET SESSION AUTHORIZATION steep_query;
SELECT lives_ok('SELECT public.schema_level()', 'a program may ask');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
