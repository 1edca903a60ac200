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

# fingerprint: what a database is
fingerprint() {
	pg_dump "$database" | sed '/restrict /d' | cksum
}

make_database
run
expect 'migrating succeeds' "$status" 0
expect '... says what it did' "$out" "$applied
done: $database has every migration"
expect '... and nothing else' "$err" ''
expect '... and records it' "$(run_psql -d "$database" -c 'SELECT name FROM public.schema_migrations ORDER BY name')" "$names"

before=$(fingerprint)
run
expect 'migrating again succeeds' "$status" 0
expect '... says that nothing is to do' "$out" "nothing to do: $database has every migration"
expect '... and changes nothing' "$(fingerprint)" "$before"

run PGOPTIONS='-c role=steep_query'
expect 'without a superuser nothing is done' "$status" 1
expect_match '... and a sentence says so' "$err" 'migrate: needs a superuser*steep_query is none*'

make_database
run PGOPTIONS='-c role=pg_monitor'
expect 'nor on a new database' "$status $(run_psql -d "$database" -c "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")" '1 0'

run PGDATABASE=steep_test_of_no_name
expect 'a database that is not there is refused' "$status" 1
expect_match "... with the server's word" "$err" '*"steep_test_of_no_name" does not exist*'

run STEEP_MIGRATIONS="$scratch/nowhere"
expect 'a folder that is not there is refused' "$status" 1
mkdir "$scratch/empty"
run STEEP_MIGRATIONS="$scratch/empty"
expect 'so is one without migrations' "$status" 1

# Any client: as one string of SQL, in which a psql command would be an error.
for name in $names; do
	status=0
	run_psql -d "$database" -c "$(cat "$here/../../sql/migrations/$name")" >"$scratch/out" 2>&1 || status=$?
	expect "$name is plain SQL" "$status $(cat "$scratch/out")" '0 '
done

# What fails leaves nothing behind: not its tables, its roles, its record.
make_database
folder="$scratch/a folder"
mkdir "$folder"
echo "CREATE TABLE public.half (); CREATE ROLE steep_test_$$; SELECT 1 / 0;" >"$folder/1.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a migration that fails is an error' "$status" 1
expect_match '... shown with its file and line' "$err" '*1.sql:1: ERROR:  division by zero*'
expect '... and leaves nothing behind' "$(run_psql -d "$database" -c "
	SELECT to_regclass('public.half'), to_regclass('public.schema_migrations'), to_regrole('steep_test_$$')")" '||'

echo 'CREATE TABLE public.good ();' >"$folder/0.sql"
run STEEP_MIGRATIONS="$folder"
expect 'what came before it stays' "$out $(run_psql -d "$database" -c "
	SELECT to_regclass('public.good'), string_agg(name, ' ') FROM public.schema_migrations")" 'applied 0.sql good|0.sql'

echo 'CREATE TABLE public.late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO public.late VALUES (1), (1);' >"$folder/1.sql"
run STEEP_MIGRATIONS="$folder"
expect 'so is one that fails at COMMIT' "$status $(run_psql -d "$database" -c "
	SELECT to_regclass('public.late'), count(*) FROM public.schema_migrations")" '1 |1'

echo 'SET ROLE pg_monitor;' >"$folder/1.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a migration need not reset its role' "$status $out" "0 applied 1.sql
done: $database has every migration"

# A file that changed.
echo 'CREATE TABLE public.good (n int);' >"$folder/0.sql"
echo 'CREATE TABLE public.next ();' >"$folder/2.sql"
run STEEP_MIGRATIONS="$folder"
expect 'a file that changed since is refused' "$status" 1
expect_match '... by name' "$err" 'migrate: 0.sql has changed since it was applied*'
expect '... before anything is done' "$(run_psql -d "$database" -c "SELECT to_regclass('public.next')")" ''

# A database that a newer version has migrated.
make_database
run
run_psql -d "$database" -c "INSERT INTO public.schema_migrations VALUES ('29990101_newer.sql', 'x')"
before=$(fingerprint)
run
expect 'a database of a newer version is refused' "$status $out" '1 '
expect_match '... by the name of what it has had' "$err" "migrate: $database has had 29990101_newer.sql, which*"
expect '... and not changed' "$(fingerprint)" "$before"

database=steep_test_$$_ascii
createdb -T template0 -E SQL_ASCII --locale=C "$database"
databases="$databases $database"
run
expect 'a database that is not UTF8 is refused' "$status" 1
expect_match '... with a sentence' "$err" 'migrate: needs a database in UTF8; *_ascii is in SQL_ASCII'
drop_databases

# race FILE DATABASE: a runner in the background
race() {
	PGDATABASE=$2 "$migrate" >"$scratch/$1" 2>&1 &
}

# race_rounds ROUNDS COMMAND DESCRIPTION: on one database, then on two of one
# cluster; the command puts things back after each round
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
	expect "two runners at once on one database, $3" "$bad" ''

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
	expect "two runners at once on two databases, $3" "$bad" ''
}

drop_roles() {
	run_psql -c 'DROP ROLE IF EXISTS steep_owner, steep_ingest, steep_query, steep_backup, steep_prune, service_role'
}

race_rounds 5 : 'with the roles there'
if start_cluster 'max_connections = 30'; then
	race_rounds 5 drop_roles 'without'

	# Logins and readers do not wait for a runner.
	mkdir "$scratch/slow"
	echo 'SELECT pg_sleep(600);' >"$scratch/slow/1.sql"
	make_database
	STEEP_MIGRATIONS="$scratch/slow" race sleeper "$database"
	sleeper=$!
	until [ "$(run_psql -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" -gt 0 ]; do
		kill -s 0 "$sleeper" || break
		sleep 0.1
	done
	expect 'one may log in, and read roles, while a runner holds its lock' \
		"$(PGOPTIONS='-c lock_timeout=10s' psql -XAtq -c "
			SELECT granted FROM pg_locks WHERE relation = 'pg_authid'::regclass AND mode = 'ShareRowExclusiveLock'" \
			-c 'SELECT count(*) > 0 FROM pg_roles' 2>&1 | tr '\n' ' ')" 't t '
	run_psql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'" >"$scratch/out"
	wait "$sleeper" || :
	drop_databases
	drop_roles

	# What was there before.
	run_psql -c 'CREATE ROLE service_role LOGIN NOINHERIT' -c 'CREATE ROLE steep_owner LOGIN CREATEROLE' \
		-c 'CREATE ROLE steep_query NOLOGIN BYPASSRLS SUPERUSER'
	make_database
	run
	expect 'roles that were there are brought to their attributes' "$status $(run_psql -c "
		SELECT rolname, rolcanlogin, rolbypassrls, rolsuper, rolcreaterole FROM pg_roles
		WHERE rolname IN ('steep_owner', 'steep_query') ORDER BY 1" | tr '\n' ' ')" '0 steep_owner|f|t|f|f steep_query|t|f|f|f '
	expect '... and service_role is left its login' "$(run_psql -c "
		SELECT rolcanlogin, rolinherit, rolbypassrls FROM pg_roles WHERE rolname = 'service_role'")" 't|f|t'

	run_psql -c 'CREATE ROLE stranger LOGIN'
	expect_match 'a stranger cannot connect' "$(psql -X -U stranger "$database" -c 'SELECT 1' 2>&1)" '*permission denied for database*'
	expect 'a program can' "$(run_psql -U steep_query "$database" -c 'SHOW timezone')" UTC
	run PGUSER=stranger PGDATABASE=postgres
	expect_match 'a user that is no superuser is refused' "$status $err" '1 migrate: needs a superuser*stranger is none*'
else
	skip 'runners on a cluster without the roles' 'no private cluster here'
fi
finish
