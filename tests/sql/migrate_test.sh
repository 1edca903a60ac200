#!/bin/sh
# sql/migrate, run as an administrator runs it.
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "$(dirname "$0")/tap.sh"

# run [VARIABLE=VALUE...]: sets $status, $out and $err
run() {
	status=0
	env PGDATABASE="$database" "$@" "$migrate" >"$scratch/out" 2>"$scratch/err" || status=$?
	out=$(cat "$scratch/out")
	err=$(cat "$scratch/err")
}

migrate=$here/../../sql/migrate
names=$(cd "$here/../../sql/migrations" && printf '%s\n' *.sql)
count=$(echo "$names" | wc -l)
applied=$(echo "$names" | sed 's/^/applied /')

# fingerprint: a checksum of the database's dump
fingerprint() {
	pg_dump "$database" | sed '/restrict /d' | cksum
}

make_database
run
expect 'migrating succeeds' "$status" 0
expect '... reports each migration' "$out" "$applied
done: $database has every migration"
expect '... prints nothing to stderr' "$err" ''
expect '... and records them' "$(run_psql -d "$database" -c 'SELECT name FROM public.schema_migrations ORDER BY name')" "$names"

before=$(fingerprint)
run
expect 'migrating again succeeds' "$status" 0
expect '... reports that there is nothing to do' "$out" "nothing to do: $database has every migration"
expect '... and changes nothing' "$(fingerprint)" "$before"

# What an upgrade of PostgreSQL or a restore may open.
writer='lo_create(oid)'
run_psql -d "$database" -c "GRANT EXECUTE ON FUNCTION $writer, public.log_failure TO PUBLIC" \
	-c "GRANT ALL ON DATABASE $database TO PUBLIC" -c "REVOKE CONNECT ON DATABASE $database FROM steep_query" \
	-c 'GRANT USAGE ON SCHEMA public TO PUBLIC' -c 'REVOKE TRIGGER ON public.events FROM service_role' \
	-c 'ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner GRANT EXECUTE ON ROUTINES TO PUBLIC'
run
expect 'access that differs is mended and reported' "$status $out" "0 mended: REVOKE EXECUTE ON FUNCTION $writer FROM PUBLIC
mended: REVOKE ALL ON DATABASE $database FROM PUBLIC
mended: REVOKE ALL ON SCHEMA public FROM PUBLIC
mended: REVOKE EXECUTE ON FUNCTION log_failure(text[],text) FROM PUBLIC
mended: ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC
mended: GRANT ALL ON TABLE public.events TO service_role
done: $database has every migration"
expect '... and is that of a new database' "$(fingerprint)" "$before"
run
expect '... so that nothing is left to do' "$out" "nothing to do: $database has every migration"
expect "a dump has no privileges of PostgreSQL's own functions" "$(pg_dump "$database" | grep -c 'FUNCTION .*pg_catalog')" 0
run_psql -d "$database" -c "DELETE FROM pg_init_privs WHERE objoid = 'pg_catalog.$writer'::regprocedure"
expect '... which is not so by itself' "$(pg_dump "$database" | grep -c 'REVOKE ALL ON FUNCTION "*pg_catalog')" 1
run
expect '... and mended too' "$out $(fingerprint)" "mended: REVOKE EXECUTE ON FUNCTION $writer FROM PUBLIC
done: $database has every migration $before"

run PGOPTIONS='-c role=steep_query'
expect 'a user who is not a superuser is refused' "$status" 1
expect_match '... with a reason' "$err" 'migrate: needs a superuser*steep_query is not one*'

make_database
run PGOPTIONS='-c role=pg_monitor'
expect '... on a new database too, and nothing is created' "$status $(run_psql -d "$database" -c "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")" '1 0'

# A server that calls itself older.
run_psql -d "$database" -c 'CREATE SCHEMA older' -c "
	CREATE FUNCTION older.current_setting(name text) RETURNS text LANGUAGE sql RETURN CASE name
		WHEN 'server_version_num' THEN '140020' WHEN 'server_version' THEN '14.20' ELSE pg_catalog.current_setting(name) END"
run PGOPTIONS='-c search_path=older,pg_catalog'
expect 'an older PostgreSQL is refused' "$status $err" '1 migrate: needs PostgreSQL 15 or newer; this server is 14.20'

run PGDATABASE=steep_test_of_no_name
expect 'a missing database is an error' "$status" 1
expect_match "... reported by the server" "$err" '*"steep_test_of_no_name" does not exist*'

run STEEP_MIGRATIONS="$scratch/nowhere"
expect 'a missing folder is refused' "$status" 1
mkdir "$scratch/empty"
run STEEP_MIGRATIONS="$scratch/empty"
expect 'so is a folder without migrations' "$status" 1

# For any client: sent as one string, in which a psql command would be a syntax error.
for name in $names; do
	status=0
	run_psql -d "$database" -c "$(cat "$here/../../sql/migrations/$name")" >"$scratch/out" 2>&1 || status=$?
	expect "$name is plain SQL" "$status $(cat "$scratch/out")" '0 '
done

# A migration that fails leaves nothing behind: no table, role or record.
make_database
folder="$scratch/a folder"
mkdir "$folder"
echo "CREATE TABLE public.half (); CREATE ROLE steep_test_$$; SELECT 1 / 0;" >"$folder/1.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a migration that fails is an error' "$status" 1
expect_match '... reported with its file and line' "$err" '*1.sql:1: ERROR:  division by zero*'
expect '... and leaves nothing behind' "$(run_psql -d "$database" -c "
	SELECT to_regclass('public.half'), to_regclass('public.schema_migrations'), to_regrole('steep_test_$$')")" '||'

echo 'CREATE TABLE public.good ();' >"$folder/0.sql"
run STEEP_MIGRATIONS="$folder"
expect 'earlier migrations are kept' "$out $(run_psql -d "$database" -c "
	SELECT to_regclass('public.good'), string_agg(name, ' ') FROM public.schema_migrations")" 'applied 0.sql good|0.sql'

echo 'CREATE TABLE public.late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO public.late VALUES (1), (1);' >"$folder/1.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a migration that fails at COMMIT leaves nothing behind' "$status $(run_psql -d "$database" -c "
	SELECT to_regclass('public.late'), count(*) FROM public.schema_migrations")" '1 |1'

echo 'SET ROLE pg_monitor;' >"$folder/1.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a migration need not reset its role' "$status $out" "0 applied 1.sql
done: $database has every migration"

# A file that changed after it was applied.
echo 'CREATE TABLE public.good (n int);' >"$folder/0.sql"
echo 'CREATE TABLE public.next ();' >"$folder/2.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a changed file is refused' "$status" 3
expect_match '... and named' "$err" 'migrate: 0.sql has changed since it was applied*'
expect '... before any other is applied' "$(run_psql -d "$database" -c "SELECT to_regclass('public.next')")" ''

# Events stored between two migrations are counted.
make_database
mkdir "$scratch/first"
cp "$here/../../sql/migrations/20260203_create_events_table.sql" "$scratch/first"
run STEEP_MIGRATIONS="$scratch/first"
run_psql -d "$database" -c "INSERT INTO public.events VALUES ('evt_1', 'm', '2026-02-03T14:35:00Z', 'tool', '{}')"
run
expect 'a migration counts the events stored before it' "$status $(run_psql -d "$database" -c "
	SELECT count(*), (SELECT count(*) FROM public.check_hourly_counts()) FROM public.hourly_counts")" '0 1|0'

# A database that another version migrated.
make_database
run
run_psql -d "$database" -c "INSERT INTO public.schema_migrations VALUES ('29990101_newer.sql', 'x')"
before=$(fingerprint)
run
expect 'an unknown migration in the database is refused' "$status $out" '3 '
expect_match '... and named' "$err" "migrate: 29990101_newer.sql was applied to $database and is unknown to this version*"
expect '... and the database is not changed' "$(fingerprint)" "$before"

database=steep_test_$$_ascii
createdb -T template0 -E SQL_ASCII --locale=C "$database"
databases="$databases $database"
run
expect 'a database that is not UTF8 is refused' "$status" 1
expect_match '... with a reason' "$err" 'migrate: needs a database in UTF8; *_ascii is in SQL_ASCII'
drop_databases

# race FILE DATABASE: starts a runner in the background
race() {
	PGDATABASE=$2 "$migrate" >"$scratch/$1" 2>&1 &
}

# race_rounds ROUNDS COMMAND DESCRIPTION: two runners on one database, then on two of one
# cluster; the command restores the state after each round
race_rounds() {
	bad=
	for round in $(seq "$1"); do
		make_database
		race a "$database"
		a=$!
		race b "$database"
		wait "$a" || bad="$bad one:$round:$(cat "$scratch/a")"
		wait "$!" || bad="$bad one:$round:$(cat "$scratch/b")"
		[ "$(grep -ch '^applied' "$scratch/a" "$scratch/b" | awk '{n += $1} END {print n}')" -eq "$count" ] ||
			bad="$bad one:$round:applied"
		[ "$(run_psql -d "$database" -c 'SELECT count(*) FROM public.schema_migrations')" -eq "$count" ] ||
			bad="$bad one:$round:records"
		drop_databases
		"$2"
	done
	expect "two runners on one database, $3" "$bad" ''

	bad=
	for round in $(seq "$1"); do
		make_database
		other=$database
		make_database
		race a "$other"
		a=$!
		race b "$database"
		wait "$a" || bad="$bad two:$round:$(cat "$scratch/a")"
		wait "$!" || bad="$bad two:$round:$(cat "$scratch/b")"
		[ "$(grep -ch '^applied' "$scratch/a" "$scratch/b" | tr '\n' ' ')" = "$count $count " ] ||
			bad="$bad two:$round:applied"
		drop_databases
		"$2"
	done
	expect "two runners on two databases, $3" "$bad" ''
}

drop_roles() {
	run_psql -c 'DROP ROLE IF EXISTS steep_owner, steep_ingest, steep_query, steep_backup, steep_prune, service_role'
}

race_rounds 5 : 'with the roles present'
if start_cluster 'max_connections = 30'; then
	race_rounds 5 drop_roles 'without the roles'

	mkdir "$scratch/slow"
	echo 'SELECT pg_sleep(600);' >"$scratch/slow/1.sql"
	make_database
	STEEP_MIGRATIONS="$scratch/slow" race sleeper "$database"
	sleeper=$!
	until [ "$(run_psql -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" -gt 0 ]; do
		kill -s 0 "$sleeper" || break
		sleep 0.1
	done
	expect 'logins and readers of pg_roles do not wait for a runner' \
		"$(PGOPTIONS='-c lock_timeout=10s' psql -XAtq -c "
			SELECT granted FROM pg_locks WHERE relation = 'pg_authid'::regclass AND mode = 'ShareRowExclusiveLock'" \
			-c 'SELECT count(*) > 0 FROM pg_roles' 2>&1 | tr '\n' ' ')" 't t '
	run_psql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'" >"$scratch/out"
	wait "$sleeper" || :
	drop_databases
	drop_roles

	# Roles that exist already.
	run_psql -c 'CREATE ROLE service_role LOGIN NOINHERIT' -c 'CREATE ROLE steep_owner LOGIN CREATEROLE' \
		-c 'CREATE ROLE steep_query NOLOGIN BYPASSRLS SUPERUSER'
	make_database
	run
	expect 'existing roles get the attributes of roles.sql' "$status $(run_psql -c "
		SELECT rolname, rolcanlogin, rolbypassrls, rolsuper, rolcreaterole FROM pg_roles
		WHERE rolname IN ('steep_owner', 'steep_query') ORDER BY 1" | tr '\n' ' ')" '0 steep_owner|f|t|f|f steep_query|t|f|f|f '
	expect '... and service_role keeps its own' "$(run_psql -c "
		SELECT rolcanlogin, rolinherit, rolbypassrls FROM pg_roles WHERE rolname = 'service_role'")" 't|f|t'

	run_psql -c 'CREATE ROLE stranger LOGIN'
	expect_match 'another role cannot connect' "$(psql -X -U stranger "$database" -c 'SELECT 1' 2>&1)" '*permission denied for database*'
	expect 'a program can, with its settings' "$(run_psql -U steep_query "$database" -c 'SHOW timezone')" UTC
	run PGUSER=stranger PGDATABASE=postgres
	expect_match 'a role without privileges is refused' "$status $err" '1 migrate: needs a superuser*stranger is not one*'
else
	skip 'runners on a cluster without the roles' 'no private cluster here'
fi
finish
