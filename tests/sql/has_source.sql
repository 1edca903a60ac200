BEGIN;
SELECT no_plan();

SELECT volatility_is('public', 'has_source', ARRAY['text[]', 'text'], 'immutable');
SELECT isnt_definer('public', 'has_source', ARRAY['text[]', 'text']);
SELECT ok(public.has_source(scope, source), format('%s sees %s', scope, source))
FROM (VALUES ('{a}'::text[], 'a'), ('{b,a}', 'a'), ('{a*}', 'a'), ('{b,a*}', 'ab'), ('{a%*}', 'a%b'), ('{a}', 'a'), (ARRAY['a\*'], 'a\b')) AS seen (scope, source);
SELECT ok(NOT public.has_source(scope, source), format('%s does not see %s', scope, source))
FROM (VALUES ('{a}'::text[], 'b'), ('{a}', 'ab'), ('{a}', 'A'), ('{a}', ''), ('{ab*}', 'a'), ('{a%*}', 'ab'), ('{a_*}', 'ab'), ('{A*}', 'a'), ('{}', 'a'),
  ('{a*}', NULL), (NULL, 'a')) AS unseen (scope, source);

-- The program has its scope from list_access_tokens, and the functions that count have it from there.
CREATE TEMP TABLE names (source) AS VALUES ('a'), ('ab'), ('abc'), ('b'), ('A'), ('a%'), ('a_'), ('a b'), ('a*'), ('a*b'), ('z');
INSERT INTO public.events (id, source, timestamp, event_type, payload) SELECT 'evt_' || source, source, now(), 'tool', '{}' FROM names;
INSERT INTO public.access_tokens (label, token_sha256, sources)
SELECT 'scope-' || number, sha256(number::text::bytea), sources
FROM unnest(ARRAY['{a}', '{a*}', '{ab,z}', '{"a b",a%*}', '{b,ab*,abc*}', '{a_*,A}', '{nobody*}']) WITH ORDINALITY AS scopes (scope, number),
  LATERAL (SELECT scope::text[] AS sources) AS as_array;
SELECT is_empty($$
  SELECT label, source FROM names CROSS JOIN public.access_tokens JOIN public.list_access_tokens() AS listed USING (label)
  WHERE public.has_source(sources, source) <> (source = ANY (public.find_sources(NULL, listed.names, listed.prefixes)))
$$, 'it agrees with what the counts of a token are of');

SELECT * FROM finish();
ROLLBACK;
