# Creates the database here, or prints how to on another machine. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # set by setup

# Sets the PG* variables for an administrator.
prepare_database() {
	file=$settings/ingest.env
	host=$(setting_of "$file" PGHOST) port=$(setting_of "$file" PGPORT) database=$(setting_of "$file" PGDATABASE)
	: "${host:=/run/postgresql}" "${port:=5432}" "${database:=steep}"
	case $database$port in
	*[!A-Za-z0-9_-]*) fail 'PGDATABASE must consist of letters, digits, _ and -, and PGPORT must be a number' ;;
	esac
	case $host in
	/*)
		expect_local_server
		make_database
		map_users
		PGHOST=$host PGPORT=$port PGDATABASE=$database PGUSER=postgres
		export PGHOST PGPORT PGDATABASE PGUSER
		try_mapping
		;;
	*)
		[ -n "${PGUSER-}" ] || describe_remote
		: "${PGHOST:=$host}" "${PGPORT:=$port}" "${PGDATABASE:=$database}"
		export PGHOST PGPORT PGDATABASE
		;;
	esac
	output=$(steepctl migrate --quiet 2>&1) || fail "the database could not be migrated: $output"
}

# As PostgreSQL's own administrator, before the mapping of users is written.
as_postgres() {
	(cd / && runuser -u postgres -- psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$host" -p "$port" "$@")
}

expect_local_server() {
	id -u postgres >/dev/null 2>&1 ||
		fail "PostgreSQL is not installed on this machine; install postgresql, or set PGHOST in $settings/*.env to another machine"
	output=$(as_postgres -d postgres -c 'SHOW server_version_num' 2>&1) ||
		fail "cannot connect to PostgreSQL at $host, port $port ($(printf '%s' "$output" | head -n 1)); run systemctl start postgresql"
	# Warnings may precede it, for example of a changed version of a collation.
	[ "$(printf '%s\n' "$output" | tail -n 1)" -ge 150000 ] || fail 'PostgreSQL 15 or newer is required'
}

make_database() {
	as_postgres -d postgres -v name="$database" -f "$sql/admin/create-database.sql" || fail "cannot create the database $database"
}

# Maps each program's system user to its role, and root to the administrator and to the
# backup role. These lines precede all others, as the first match counts.
map_users() {
	hba=$(as_postgres -d postgres -c 'SHOW hba_file') ident=$(as_postgres -d postgres -c 'SHOW ident_file')
	write_block "$hba" <<END
local "$database" steep_ingest,steep_query,steep_prune peer map=steep
local "$database" postgres,steep_backup peer map=steep
END
	write_block "$ident" <<'END'
steep steep-ingest steep_ingest
steep steep-query steep_query
steep steep-prune steep_prune
steep root postgres
steep root steep_backup
steep postgres postgres
steep postgres steep_backup
END
	as_postgres -d postgres -c 'SELECT pg_reload_conf()' >/dev/null
	errors=$(as_postgres -d postgres -f "$sql/admin/authentication-errors.sql")
	[ -z "$errors" ] || fail "PostgreSQL rejects its configuration: $errors"
}

# write_block FILE: writes standard input to the beginning of FILE between two marks, in
# place of an earlier run's lines. Keeps owner and mode.
#
# Runs as postgres, the owner of the folder, who could otherwise make root write through a
# link.
write_block() {
	lines=$(cat)
	# shellcheck disable=SC2016 # expanded by that shell
	problem=$(cd / && runuser -u postgres -- sh -euc '
		begin="# steepctl setup: begin" end="# steepctl setup: end"
		file=$(readlink -f -- "$1") lines=$2
		with_block() {
			printf "%s\n" "$begin" "$lines" "$end"
			sed "/^$begin\$/,/^$end\$/d" "$file"
		}
		if [ "$(grep -cxF "$begin" "$file")" != "$(grep -cxF "$end" "$file")" ]; then
			echo "has one of the lines \"$begin\" and \"$end\" without the other"
			exit 1
		fi
		with_block | cmp -s - "$file" && exit
		rm -f "$file.steep"
		cp -p -- "$file" "$file.steep"
		with_block >"$file.steep"
		mv -f -- "$file.steep" "$file"' write_block "$1" "$lines" 2>&1) ||
		fail "$1 ${problem:-could not be changed}; put these lines at its beginning:
$lines"
}

# PostgreSQL reloads its configuration with a short delay.
try_mapping() {
	tries=50
	until output=$(psql -X -q -A -t -c 'SELECT' 2>&1); do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail "root cannot log in to PostgreSQL as postgres: $output"
		sleep 0.2
	done
}

# The programs start all the same, and open connections only as they need them.
check_connections() {
	warning=$(psql -X -q -A -t -F ': ' -v ON_ERROR_STOP=1 \
		-v connections="$(most_connections "$settings/ingest.env" "$settings/query.env")" \
		-f "$sql/admin/connections.sql") || fail 'cannot read the number of connections that the server allows'
	[ -z "$warning" ] || say "$warning"
}

describe_remote() {
	cat >&2 <<END
steep: the database is on another machine, $host. To set it up, run there once:

  createdb --template=template0 --encoding=UTF8 --locale=C.UTF-8 $database

Then here, as one of its superusers:

  PGHOST=$host PGPORT=$port PGDATABASE=$database PGUSER=postgres steepctl migrate

Then there, set three passwords and add a line to pg_hba.conf:

  psql $database -c '\\password steep_ingest' -c '\\password steep_query' -c '\\password steep_prune'
  hostssl $database steep_ingest,steep_query,steep_prune THIS-MACHINE scram-sha-256

Set PGPASSWORD in $settings/ingest.env, query.env and prune.env, install
/usr/share/doc/steep/examples/remote-database.conf as it says, and finish with:

  PGHOST=$host PGPORT=$port PGDATABASE=$database PGUSER=postgres steepctl setup
END
	exit 1
}
