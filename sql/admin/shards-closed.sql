-- Prints t if the router reaches no shard since shards-close.sql; otherwise f.
SELECT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'steep_closed');
