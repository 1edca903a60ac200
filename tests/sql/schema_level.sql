BEGIN;
SELECT plan(4);

SELECT is(public.schema_level(), (SELECT max(name COLLATE "C") FROM public.schema_migrations), 'it is the newest migration applied');
INSERT INTO public.schema_migrations (name, sha256) VALUES ('29990101_future.sql', 'x');
SELECT is(public.schema_level(), '29990101_future.sql', '... even one this version does not have');
DELETE FROM public.schema_migrations;
SELECT is(public.schema_level(), NULL, '... and NULL if there is none');
SET SESSION AUTHORIZATION steep_query;
SELECT lives_ok('SELECT public.schema_level()', 'a program can call it');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
