-- Creates the database unless it exists: from template0, as the cluster may have another
-- encoding.
-- :name   the database
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = :'name') AS missing \gset
\if :missing
CREATE DATABASE :"name" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';
\endif
