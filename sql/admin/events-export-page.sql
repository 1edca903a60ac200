-- A page of events-export-shard.sql, if there is another.
\if :more
BEGIN;
SET LOCAL datestyle = ISO;
SET LOCAL timezone = UTC;
SELECT proxy.export_page(
  :shard, NULLIF(:'source', ''), NULLIF(:'after', '')::timestamptz, NULLIF(:'from', '')::timestamptz, NULLIF(:'to', '')::timestamptz
);
SELECT :printed + :ROW_COUNT AS printed, until AS after, until <> '' AS more FROM current_setting('steep.exported_until') AS until \gset
COMMIT;
\endif
