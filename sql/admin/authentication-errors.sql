-- Prints the errors in pg_hba.conf and pg_ident.conf, one a line.
SELECT concat('pg_hba.conf, line ', line_number, ': ', error) FROM pg_hba_file_rules WHERE error IS NOT NULL
UNION ALL
SELECT concat('pg_ident.conf, line ', line_number, ': ', error) FROM pg_ident_file_mappings WHERE error IS NOT NULL;
