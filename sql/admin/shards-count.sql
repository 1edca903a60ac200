-- Prints how many shards this database was made the router of; 0 if it is none.
\if :{?is_router}
SELECT proxy.shards();
\else
SELECT 0;
\endif
