# The database: made here, or described for the administrator of another machine.
# Sourced by setup.
# shellcheck shell=sh disable=SC2154 # what setup sets

# Sets the PG* variables to those of an administrator.
prepare_database() {
	file=$settings/ingest.env
	host=$(setting_of "$file" PGHOST) port=$(setting_of "$file" PGPORT) database=$(setting_of "$file" PGDATABASE)
	: "${host:=/run/postgresql}" "${port:=5432}" "${database:=steep}"
	case $database$port in
	*[!A-Za-z0-9_-]*) fail 'PGDATABASE is letters, digits, _ and -, and PGPORT a number' ;;
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
	output=$(steepctl migrate 2>&1) || fail "the database could not be migrated: $output"
}

# As PostgreSQL's own administrator, before anybody else is known to it.
as_postgres() {
	(cd / && runuser -u postgres -- psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$host" -p "$port" "$@")
}

expect_local_server() {
	id -u postgres >/dev/null 2>&1 ||
		fail "there is no PostgreSQL on this machine; install postgresql, or name another machine in $settings/*.env"
	output=$(as_postgres -d postgres -c 'SHOW server_version_num' 2>&1) ||
		fail "PostgreSQL does not answer at $host, port $port ($(printf '%s' "$output" | head -n 1)); systemctl start postgresql"
	# Before it the server may warn, of another version of a collation for instance.
	[ "$(printf '%s\n' "$output" | tail -n 1)" -ge 150000 ] || fail 'PostgreSQL is older than 15'
}

make_database() {
	as_postgres -d postgres -v name="$database" -f "$sql/admin/create-database.sql" || fail "the database $database can't be made"
}

# Who is who: each program's system user is its role, root is the administrator, and
# the role that dumps are made as.
# Before the lines that are there, of which the first that fits counts.
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
	[ -z "$errors" ] || fail "PostgreSQL does not take its configuration: $errors"
}

# write_block FILE: puts standard input at its beginning, between two marks, in
# place of what an earlier run put there. Owner and mode stay.
#
# As postgres, whose file and folder these are: root would follow whatever link stands
# there in the right moment.
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
		fail "$1 ${problem:-is as it was}; these lines are to stand at its beginning:
$lines"
}

# A reload takes effect in a moment of the server's own.
try_mapping() {
	tries=50
	until output=$(psql -X -q -A -t -c 'SELECT' 2>&1); do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail "root can't log in to PostgreSQL as postgres: $output"
		sleep 0.2
	done
}

describe_remote() {
	cat >&2 <<END
steep: the database is on another machine, $host. Its administrator has to do this, once:

  createdb --template=template0 --encoding=UTF8 --locale=C.UTF-8 $database

and here, as a superuser there:

  PGHOST=$host PGPORT=$port PGDATABASE=$database PGUSER=postgres steepctl migrate

and there again, with three passwords:

  psql $database -c '\\password steep_ingest' -c '\\password steep_query' -c '\\password steep_prune'
  pg_hba.conf: hostssl $database steep_ingest,steep_query,steep_prune THIS-MACHINE scram-sha-256

Write each password as PGPASSWORD into $settings/ingest.env, query.env and prune.env,
put /usr/share/doc/steep/examples/remote-database.conf where it says, and finish with

  PGHOST=$host PGPORT=$port PGDATABASE=$database PGUSER=postgres steepctl setup
END
	exit 1
}
