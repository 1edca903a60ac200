-- Steps that move and remove the events of a source, and what precedes them.
BEGIN;
SELECT no_plan();

SELECT is_definer('public', name, arguments)
FROM (VALUES
  ('move_events', ARRAY['text', 'text', 'integer']),
  ('remove_events', ARRAY['text', 'timestamp with time zone', 'timestamp with time zone', 'integer']),
  ('begin_rename', ARRAY['text', 'text', 'boolean']),
  ('begin_erase', ARRAY['text']),
  ('count_source', ARRAY['text'])
) AS functions (name, arguments);

-- An event each 20 minutes, so that bounds fall into hours; more than 100 hours.
CREATE FUNCTION pg_temp.fill() RETURNS void LANGUAGE sql AS $$
  TRUNCATE public.events;
  INSERT INTO public.events (id, source, timestamp, event_type, payload)
  SELECT 'evt_' || n, 'm' || n % 3, timestamptz '2026-02-03 00:00Z' + n * interval '20 minutes', 'tool', '{"n": 1}' FROM generate_series(0, 899) AS n;
  INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES
    ('evt_first', 'm0', '-infinity', 'tool', '{}'), ('evt_last', 'm0', 'infinity', 'tool', '{}'),
    ('evt_end', 'm0', '2026-02-03 01:59:59.999999Z', 'tool', '{}');
$$;
PREPARE miscounted AS SELECT * FROM public.check_hourly_counts();
CREATE FUNCTION pg_temp.steps(statement text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  step bigint;
  steps bigint[];
BEGIN
  LOOP
    EXECUTE statement INTO step;
    steps := steps || step;
    EXIT WHEN step = 0;
  END LOOP;
  RETURN steps;
END
$$;

SELECT pg_temp.fill();
SELECT is(pg_temp.steps($$SELECT public.move_events('m0', 'n', 80)$$), '{80,80,80,63,0}', 'a step moves at most max_rows events');
SELECT is((SELECT count(*) FROM public.events WHERE source = 'n'), 303::bigint, '... until all are moved, at infinity and at the end of an hour too');
SELECT is((SELECT count(*) FROM public.events WHERE source = 'm0'), 0::bigint, '... and none is left');
SELECT results_eq($$SELECT source, count(*) FROM public.events GROUP BY 1 ORDER BY 1$$,
  $$VALUES ('m1' COLLATE "C", 300::bigint), ('m2', 300), ('n', 303)$$, '... and the other sources keep theirs');
SELECT is_empty('miscounted', 'the hourly counts have moved');
SELECT is_empty($$SELECT FROM public.hourly_counts WHERE source = 'm0'$$, '... and none of the old name is left');
SELECT is((SELECT payload::text FROM public.events WHERE id = 'evt_0'), '{"n": 1}', 'the payload stays');
SELECT is(public.move_events('n', 'm1', 1), 1::bigint, 'into another source that has events');
SELECT is((SELECT source FROM public.events WHERE timestamp = '-infinity'), 'm1', '... the oldest first');
SELECT is_empty('miscounted', '... which are counted together');
SELECT is(public.move_events('n', 'm1'), 101::bigint, 'a step reads at most 100 hours');
SELECT is(pg_temp.steps($$SELECT public.move_events('n', 'm1')$$), '{100,100,1,0}', '... and the next goes on');
SELECT is(public.move_events('none', 'm1'), 0::bigint, 'a source that does not exist has none');

SELECT throws_ok(format('SELECT public.move_events(%s)', arguments), '22023', NULL, arguments || ' is refused')
FROM (VALUES ('''m1'', ''m1'''), ('NULL, ''m'''), ('''m1'', NULL'), ('''m1'', ''x'', 0'), ('''m1'', ''x'', NULL')) AS bad (arguments);
SELECT throws_ok(format('SELECT public.remove_events(%s)', arguments), '22023', NULL, arguments || ' is refused')
FROM (VALUES ('''m1'', max_rows => 0'), ('''m1'', max_rows => NULL')) AS bad (arguments);
SELECT throws_ok($$SELECT public.move_events('m1', repeat('x', 256))$$, '23514', NULL, 'a name that is too long is refused');

-- Every combination of bounds leaves what a plain DELETE leaves.
CREATE TEMP TABLE bounds (bound) AS VALUES
  (NULL::timestamptz), ('-infinity'), ('2026-02-03 01:59:59.999999Z'), ('2026-02-04 00:30Z'), ('infinity');
CREATE FUNCTION pg_temp.left_after(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  remaining text;
BEGIN
  PERFORM pg_temp.fill();
  EXECUTE statement;
  SELECT string_agg(id, ' ' ORDER BY id) INTO remaining FROM public.events;
  RETURN remaining;
END
$$;
SELECT is_empty($$
  SELECT source, bounds.bound, ends.bound FROM (VALUES ('m0'), (NULL)) AS sources (source), bounds, bounds AS ends
  WHERE pg_temp.left_after(format('SELECT pg_temp.steps(%L)',
      format('SELECT public.remove_events(%L, %L, %L, 150)', source, bounds.bound, ends.bound)))
    IS DISTINCT FROM pg_temp.left_after(format('DELETE FROM public.events WHERE source = coalesce(%L, source)'
      ' AND timestamp >= coalesce(%L::timestamptz, ''-infinity'') AND (%3$L IS NULL OR timestamp < %3$L::timestamptz)',
      source, bounds.bound, ends.bound))
$$, 'steps of remove_events leave what one DELETE leaves');
SELECT pg_temp.fill();
SELECT is(pg_temp.steps($$SELECT public.remove_events('m1', max_rows => 40)$$), '{40,40,40,40,40,40,40,20,0}', 'a step removes at most max_rows events');
SELECT is(public.remove_events(NULL, max_rows => 7), 7::bigint, '... of all sources too');
SELECT is_empty('miscounted', 'the hourly counts are correct');

-- begin_rename
SELECT pg_temp.fill();
INSERT INTO public.monitor_keys (source, public_key) SELECT 'm0', sha256(n::text::bytea) FROM generate_series(1, 3) AS n;
SELECT throws_ok($$SELECT public.begin_rename('none', 'new')$$, 'P0002', 'there is no source none', 'a source must exist');
SELECT throws_ok($$SELECT public.begin_rename('m0', 'm0')$$, '22023', 'a source cannot be renamed to itself');
SELECT throws_ok($$SELECT public.begin_rename(NULL, 'm0')$$, '22023', 'a source cannot be renamed to itself', 'no name is refused');
SELECT throws_ok(format('SELECT public.begin_rename(''m0'', %L)', name), '22023', NULL, kind || ' is refused as a new name')
FROM (VALUES
  ('nothing', ''), ('a space at the start', ' x'), ('a space at the end', 'x '), ('a letter that is not ASCII', U&'\00e9'),
  ('a tab', E'a\tb'), ('a newline', E'a\n'), ('256 letters', repeat('x', 256)), ('NULL', NULL)
) AS bad (kind, name);
SELECT throws_ok($$SELECT public.begin_rename('m0', 'm1')$$, '55000', 'm1 has events already', 'a name that has events is refused');
SELECT is_empty('SELECT FROM public.source_renames', '... and none of these is recorded');
SELECT is((SELECT count(*) FROM public.monitor_keys WHERE source <> 'm0'), 0::bigint, '... and no key copied');
SELECT is((public.begin_rename('m0', 'new')).keys, 3::bigint, 'the keys are copied');
SELECT results_eq($$SELECT public_key, slot FROM public.monitor_keys WHERE source = 'new' ORDER BY slot$$,
  $$SELECT public_key, slot FROM public.monitor_keys WHERE source = 'm0' ORDER BY slot$$, '... and the old name keeps its own');
SELECT is(public.move_events('m0', 'new', 10), 10::bigint);
SELECT is((public.begin_rename('m0', 'new')).keys, 0::bigint, 'a rename can be begun again, although the new name has events');
SELECT throws_ok($$SELECT public.begin_rename('m1', 'new')$$, '55000', 'new has events already', '... but not one of another source');
SELECT is((public.begin_rename('m1', 'new', true)).keys, 0::bigint, '... unless they shall be merged');
SELECT throws_ok($$SELECT public.begin_rename('new', 'm0')$$, '55000', 'm0 has events already', '... nor one in the other direction');
SELECT is((public.begin_rename('new', 'm0', true)).keys, 0::bigint);
SELECT throws_ok($$SELECT public.begin_rename('m0', 'new')$$, '55000', NULL, 'a rename back forgets the first one');
INSERT INTO public.monitor_keys (source, public_key) SELECT 'full', sha256(n::text::bytea) FROM generate_series(3, 10) AS n;
SELECT throws_ok($$SELECT public.begin_rename('m0', 'full')$$, '23514', 'a source has at most 8 public keys', 'keys that do not fit refuse the rename');
SELECT is_empty($$SELECT FROM public.source_renames WHERE new_source = 'full'$$, '... which is not begun');

-- Tokens whose scope names the old source. Those of the other functions' tests have none.
DELETE FROM public.access_tokens;
INSERT INTO public.access_tokens (label, token_sha256, sources)
SELECT label, sha256(label::bytea), sources FROM (VALUES
  ('all', NULL), ('exact', ARRAY['t']), ('Among', ARRAY['a', 't']), ('both', ARRAY['t', 'u']), ('covered', ARRAY['t', 'u*']),
  ('prefix', ARRAY['t*']), ('other', ARRAY['tt']), ('499', ARRAY['t'] || array_fill('x'::text, ARRAY[498])),
  ('500', ARRAY['t'] || array_fill('x'::text, ARRAY[499]))
) AS tokens (label, sources);
CREATE TEMP TABLE scopes AS SELECT label, sources FROM public.access_tokens;
CREATE FUNCTION pg_temp.changed() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT label || ':' || right(t.sources::text, 6)
  FROM public.access_tokens AS t JOIN pg_temp.scopes USING (label)
  WHERE t.sources IS DISTINCT FROM scopes.sources ORDER BY label COLLATE "C"
$$;
CREATE FUNCTION pg_temp.reset() RETURNS void LANGUAGE sql AS $$
  UPDATE public.access_tokens AS t SET sources = scopes.sources FROM pg_temp.scopes WHERE scopes.label = t.label;
  DELETE FROM public.source_renames; DELETE FROM public.monitor_keys; DELETE FROM public.events;
  INSERT INTO public.monitor_keys (source, public_key) VALUES ('t', sha256('t')), ('lab*', sha256('lab')), ('r', sha256('r'));
  INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_t', 't', now(), 'tool', '{}');
$$;
SELECT pg_temp.reset();
SELECT is((public.begin_rename('t', 'u')).labels, '{499,Among,exact}', 'a rename returns the tokens that got the new name');
SELECT results_eq('SELECT pg_temp.changed()', ARRAY['499:x,x,u}', 'Among:a,t,u}', 'exact:{t,u}'],
  '... whose scope names the old one, and has neither the new one nor 500 sources');
UPDATE public.access_tokens SET sources = '{t}' WHERE label = 'exact';
SELECT is((public.begin_rename('t', 'u')).labels, '{}', 'a rename that is begun again adds nothing');
SELECT is((SELECT sources FROM public.access_tokens WHERE label = 'exact'), '{t}', '... that was taken away');

SELECT pg_temp.reset();
INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_u', 'u', now(), 'tool', '{}');
SELECT is((public.begin_rename('t', 'u', true)).labels, '{}', 'a name that has events of another is added to no scope');
SELECT is_empty('SELECT pg_temp.changed()', '... so that nobody sees these');
SELECT pg_temp.reset();
INSERT INTO public.monitor_keys (source, public_key) VALUES ('u', sha256('t')), ('u', sha256('u'));
SELECT is((public.begin_rename('t', 'u')).labels, '{}', '... nor one that has a key of another');
SELECT is_empty('SELECT pg_temp.changed()');
SELECT pg_temp.reset();
INSERT INTO public.monitor_keys (source, public_key) VALUES ('u', sha256('t'));
SELECT is((public.begin_rename('t', 'u')).labels, '{499,Among,exact}', '... but one that has the same key');
SELECT pg_temp.reset();
SELECT is((public.begin_rename('t', name)).labels, '{}', name || ' is added to no scope, where it would not be a name') FROM (VALUES ('u*'), ('u*u')) AS names (name);
SELECT is_empty('SELECT pg_temp.changed()', '... which would show others');
UPDATE public.access_tokens SET sources = '{lab*}' WHERE label = 'exact';
SELECT is((public.begin_rename('lab*', 'u')).labels, '{}', 'a prefix that is equal to the old name does not name it');
DELETE FROM public.access_tokens;
SELECT is((public.begin_rename('r', 's')).labels, '{}', 'without tokens there is nothing to add');

-- begin_erase
SELECT pg_temp.fill();
DELETE FROM public.monitor_keys;
DELETE FROM public.source_renames;
INSERT INTO public.monitor_keys (source, public_key) SELECT unnest(ARRAY['m0', 'new']), sha256(n::text::bytea) FROM generate_series(1, 3) AS n;
INSERT INTO public.source_renames VALUES ('m1', 'new'), ('new', 'm0'), ('m1', 'm2');
SELECT is(public.begin_erase('new'), 3::bigint, 'an erasure removes the keys');
SELECT is_empty($$SELECT FROM public.monitor_keys WHERE source = 'new'$$, '... all of them');
SELECT is((SELECT count(*) FROM public.monitor_keys WHERE source = 'm0'), 3::bigint, '... and of no other source');
SELECT is_empty($$SELECT FROM public.source_renames WHERE 'new' IN (old_source, new_source)$$, '... and what is recorded of it');
SELECT results_eq('SELECT old_source, new_source FROM public.source_renames', $$VALUES ('m1' COLLATE "C", 'm2' COLLATE "C")$$, '... but nothing else');

SELECT * FROM finish();
ROLLBACK;
