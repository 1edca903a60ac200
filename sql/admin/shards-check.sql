-- Prints what is wrong with the shards, a sentence a line; nothing if all is well.
SELECT * FROM proxy.check_shards();
