-- Prints the events of one shard as events-export.sql does, the oldest first, 10 pages of them;
-- then, to standard error, how many these are, a slash, and the time to continue after, which is
-- empty if there are no more. Each page is a transaction.
-- :shard    the number of the shard
-- :after    the time to continue after, or empty
-- Its other variables are those of events-export.sql.
\set printed 0
\set more true
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\ir events-export-page.sql
\warn :printed/:after
