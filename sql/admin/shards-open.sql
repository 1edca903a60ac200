-- Takes back what shards-close.sql did.
SELECT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'steep_closed') AS is_closed \gset
\if :is_closed
ALTER SERVER steep_closed RENAME TO steep;
\endif
