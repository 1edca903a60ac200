# The private PostgreSQL cluster. Sourced by serve.
# shellcheck shell=sh disable=SC2154 # set by serve

sql() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# Sets $pg_bin to the programs of the major version that created the cluster, which may be
# another than the system's after an upgrade of Debian: no server starts on the files of
# another.
choose_postgresql() {
	major=$(postgresql_major)
	[ "$major" -ge 15 ] || fail "the package postgresql is PostgreSQL $major; 15 or newer is required"
	created_by=$(cat pg/PG_VERSION 2>/dev/null) || created_by=$major
	pg_bin=/usr/lib/postgresql/$created_by/bin
	[ -x "$pg_bin/postgres" ] || fail "$state/pg was created by PostgreSQL $created_by, and PostgreSQL $major is installed; \
to keep its events, see \"Another PostgreSQL\" in deploy/README.md; to start without them, remove $state/pg"
}

make_cluster() {
	[ ! -d pg ] || return 0
	say 'creating a database cluster'
	# Renamed when complete, so that an interrupted run leaves no half cluster in pg.
	rm -rf pg.new
	"$pg_bin/initdb" -D pg.new -U postgres --auth-local=peer --auth-host=reject \
		--encoding=UTF8 --locale=C.UTF-8 --data-checksums --no-instructions \
		>log/postgresql.log 2>&1 9<&- || {
		tail -n 12 log/postgresql.log >&2
		fail 'initdb failed'
	}
	echo "include 'steep.conf'" >>pg.new/postgresql.conf
	mv pg.new pg
}

# Sets PGHOST to the folder of the socket. A socket's path has at most 107 bytes, and
# libpq reads a comma as a list of hosts.
choose_socket_folder() {
	remove_socket_folder
	PGHOST=$state/pg.sock
	bytes=$(printf '%s' "$PGHOST/.s.PGSQL.5432" | wc -c)
	case $PGHOST in *,*) bytes=108 ;; esac
	if [ "$bytes" -le 107 ]; then
		mkdir -p pg.sock
		socket_folder=../pg.sock
	else
		PGHOST=$(mktemp -d /tmp/steep-socket.XXXXXX)
		socket_folder=$PGHOST
		echo "$PGHOST" >run/socket-folder
	fi
}

# Removes also the folder of a killed run, but only if this user owns it.
remove_socket_folder() {
	folder=$(cat run/socket-folder 2>/dev/null) || return 0
	case $folder in
	/tmp/steep-socket.*) if [ -O "$folder" ] && [ ! -L "$folder" ]; then rm -rf "$folder"; fi ;;
	esac
	rm -f run/socket-folder
}

configure_cluster() {
	choose_socket_folder
	connections=${STEEP_CONNECTIONS:-$(nproc)}
	case $connections in *[!0-9]* | 0* | 1 | ????*) connections=2 ;; esac
	cat >pg/steep.conf <<END
# Written by deploy/run at each start.
listen_addresses = ''
unix_socket_directories = '$socket_folder'
unix_socket_permissions = 0700
port = 5432
# Two programs, each with two more than those for requests, and some more.
max_connections = $(((connections + 2) * 2 + 40))
timezone = 'UTC'
log_timezone = 'UTC'
log_destination = 'stderr'
logging_collector = off
END
	cat >pg/pg_hba.conf <<'END'
local all   postgres                 peer map=steep
local steep steep_ingest,steep_query peer map=steep
END
	user=$(id -un)
	for role in postgres steep_ingest steep_query; do
		printf 'steep "%s" %s\nsteep root %s\n' "$user" "$role" "$role"
	done >pg/pg_ident.conf

	PGPORT=5432 PGUSER=postgres PGDATABASE=steep
	export PGHOST PGPORT PGUSER PGDATABASE
}

start_postgres() {
	# A stale lock file would stop PostgreSQL if its pid is in use again; end_leftovers
	# made sure that no server runs here.
	rm -f pg/postmaster.pid
	keep_running postgres INT "$pg_bin/postgres" -D "$state/pg"
}

answers_sql() {
	sql -d postgres -c 'SELECT' >/dev/null 2>&1
}

prepare_database() {
	wait_until postgres 120 answers_sql
	sql -d postgres -v name=steep -f "$lib/sql/admin/create-database.sql"
	status=0
	output=$("$lib/sql/migrate" 2>&1) || status=$?
	case $status in
	0) ;;
	3) fail "the database in $state was made by other migrations than this version's; to start again, remove the folder $state and the events in it" ;;
	*) fail "the migrations failed:
$output" ;;
	esac
}
