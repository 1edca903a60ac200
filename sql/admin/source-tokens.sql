-- Prints the live tokens to whose scope a rename or an erasure matters, a line each: a word, the
-- label, and the command that changes the scope, with shell's quotes.
--   lost    it sees the source and not its new name; - if this cannot be added to its scope
--   gained  it sees the new name and not the source; -
--   named   it names the source that was erased
-- :source   the source
-- :new      its new name, or empty if it was erased
WITH scoped AS (
  SELECT label, sources, public.has_source(sources, :'source') AS has_old, public.has_source(sources, :'new') AS has_new,
    CASE WHEN :'new' = '' THEN array_remove(sources, :'source') ELSE sources || :'new'::text END AS changed
  FROM public.access_tokens
  WHERE sources IS NOT NULL AND coalesce(expires_at > now(), true)
)
SELECT change, label,
  CASE
    WHEN change = 'named' AND changed = '{}' THEN 'steepctl token remove ' || label
    WHEN change = 'gained' OR :'new' LIKE '%*%' OR cardinality(changed) > 500 THEN '-'
    ELSE 'steepctl token scope ' || label || (
      SELECT string_agg(' --source ' || CASE
          WHEN source COLLATE "C" ~ '^[A-Za-z0-9_.:/@%+=,-]+$' THEN source
          ELSE '''' || replace(source, '''', '''\''''') || ''''
        END, '' ORDER BY number)
      FROM unnest(changed) WITH ORDINALITY AS named (source, number))
  END
FROM scoped CROSS JOIN LATERAL (
  SELECT CASE
    WHEN :'new' = '' THEN CASE WHEN :'source' = ANY (sources) AND :'source' NOT LIKE '%*' THEN 'named' END
    WHEN has_old AND NOT has_new THEN 'lost'
    WHEN has_new AND NOT has_old THEN 'gained'
  END AS change
) AS changes
WHERE change IS NOT NULL
ORDER BY label COLLATE "C";
