-- Prints how many shards there are by what this shard knows of its place; 0 if it has none.
SELECT to_regclass('proxy.place') IS NOT NULL AS has_place \gset
\if :has_place
SELECT coalesce(max(shards), 0) FROM proxy.place;
\else
SELECT 0;
\endif
