# Sourced by the shell tests: TAP, and databases and a cluster for a test alone.
# shellcheck shell=sh
set -eu
LC_ALL=C
export LC_ALL
# shellcheck disable=SC2034 # the tests use it
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/steep-sql.XXXXXX")
databases=
cluster=
bindir=
tests=0
failures=0

run_psql() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# expect DESCRIPTION GOT WANTED
expect() {
	tests=$((tests + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $tests - $1"
	else
		failures=$((failures + 1))
		echo "not ok $tests - $1"
		printf 'have: %s\nwant: %s\n' "$2" "$3" | sed 's/^/# /'
	fi
}

# expect_match DESCRIPTION GOT PATTERN
expect_match() {
	# shellcheck disable=SC2254 # it is a pattern
	case $2 in
	$3) expect "$1" yes yes ;;
	*) expect "$1" "$2" "$3" ;;
	esac
}

skip() {
	tests=$((tests + 1))
	echo "ok $tests - $1 # SKIP $2"
}

finish() {
	echo "1..$tests"
	[ "$failures" -eq 0 ]
}

# make_database: sets $database
make_database() {
	database=steep_test_$$_$((serial = ${serial:-0} + 1))
	createdb -T template0 -E UTF8 "$database"
	databases="$databases $database"
}

drop_databases() {
	for database in $databases; do
		dropdb --if-exists --force "$database"
	done
	databases=
}

as_cluster_user() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u "$cluster_user" -- "$@"
	else
		"$@"
	fi
}

# start_cluster [SETTING...]: starts a private cluster of the same programs, and sets PG* to
# it. Its socket is in a folder that only its user can enter, which is what makes "trust"
# safe. Returns 1 if no cluster can be made.
start_cluster() {
	drop_databases
	if [ -z "$bindir" ]; then
		bindir=$(run_psql -d postgres -c "SELECT setting FROM pg_config WHERE name = 'BINDIR'")
		cluster_user=$(stat -c %U "$(run_psql -d postgres -c 'SHOW data_directory')")
	fi
	[ -x "$bindir/initdb" ] || return 1
	cluster=$(mktemp -d /tmp/steep-pg.XXXXXX)
	[ "$(id -u)" -ne 0 ] || chown "$cluster_user" "$cluster"
	as_cluster_user "$bindir/initdb" -D "$cluster/data" -U postgres -A trust -E UTF8 --no-locale -N >"$cluster.out" 2>&1 || return 1
	mv "$cluster.out" "$scratch/initdb"
	printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$cluster'" 'fsync = off' "$@" |
		as_cluster_user tee -a "$cluster/data/postgresql.conf" >/dev/null
	as_cluster_user "$bindir/pg_ctl" -D "$cluster/data" -l "$cluster/log" -w start >/dev/null || return 1
	PGHOST=$cluster PGUSER=postgres PGDATABASE=postgres PGPORT=5432
	export PGHOST PGUSER PGDATABASE PGPORT
}

clean_up() {
	trap - EXIT HUP INT TERM
	if [ -n "$cluster" ]; then
		as_cluster_user "$bindir/pg_ctl" -D "$cluster/data" -m immediate stop >/dev/null 2>&1 || :
		rm -rf "$cluster"
	else
		drop_databases
	fi
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
