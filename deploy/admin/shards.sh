# Shards: databases behind a router, which has the functions of sql/proxy/. Sourced by steepctl.
# shellcheck shell=sh disable=SC2034,SC2154 # set by steepctl, and read by other files of it

# read_shards [STRING…]: sets $strings to the connection strings of the shards, a line each, those
# of standard input if none is given, and $count to their number. What an administrator needs to log
# in, user and password, is not for the router and not for a message.
read_shards() {
	if [ $# -gt 0 ]; then
		strings=$(printf '%s\n' "$@")
		case $strings in
		*password=*) refuse 'others can read the arguments of a command: write strings with a password to standard input, a line each, or use ~/.pgpass' ;;
		esac
	else
		strings=$(grep -v '^[[:space:]]*\(#\|$\)') || strings=''
	fi
	count=0
	while IFS= read -r string; do
		[ -n "$string" ] || continue
		check_string "$string" "$count"
		count=$((count + 1))
	done <<END
$strings
END
	case $count in
	1 | 2 | 4 | 8 | 16 | 32 | 64 | 128 | 256) ;;
	*) refuse "there must be 1, 2, 4 or another power of two of shards up to 256, not $count" ;;
	esac
}

# check_string STRING NUMBER: libpq's own message about a string may quote the password.
check_string() {
	printf '%s' "$1" | grep -qxE "[[:space:]]*([a-z_]+=[^[:space:]'\\\\]+[[:space:]]*)+" ||
		refuse "the connection string of shard $2 must be NAME=VALUE pairs without quotes, such as host=10.0.0.2 dbname=steep user=postgres"
	for name in host dbname; do
		case " $1" in *[[:space:]]"$name="*) ;; *) refuse "the connection string of shard $2 has no $name" ;; esac
	done
	case " $1" in
	*[[:space:]]service=* | *[[:space:]]options=* | *[[:space:]]passfile=* | *[[:space:]]sslpassword=* | *[[:space:]]target_session_attrs=*)
		refuse "the connection string of shard $2 must not have service, options, passfile, sslpassword or target_session_attrs"
		;;
	esac
}

# on_shard NUMBER COMMAND…: runs a command with the database's variables of a shard. The string is
# in a file that only this user may read, since others can read arguments and libpq has no
# variable for all of it.
on_shard() {
	shard=$1
	shift
	{
		echo '[shard]'
		printf '%s\n' "$strings" | sed -n "$((shard + 1))p" | tr -s '[:space:]' '\n' | grep .
	} >"$service"
	env -u PGHOST -u PGHOSTADDR -u PGPORT -u PGDATABASE -u PGUSER -u PGPASSWORD PGSERVICEFILE="$service" PGSERVICE=shard PGCONNECT_TIMEOUT=10 "$@"
}

# For the router: where each shard is, without who logs in.
places() {
	printf '%s\n' "$strings" | sed -E 's/(^|[[:space:]])(user|password)=[^[:space:]]*//g;s/^[[:space:]]+//'
}

# Runs a file of sql/ on a shard: shard_sql NUMBER FILE [-v NAME=VALUE]…
shard_sql() {
	shard=$1 file=$sql/$2
	shift 2
	errors=$(on_shard "$shard" psql -X -q -A -t -F '	' -v ON_ERROR_STOP=1 "$@" -f "$file" 2>&1 >"$scratch/output") ||
		refuse "shard $shard: $(sentence "$errors")"
	cat "$scratch/output"
}

# Makes $scratch, a folder that only this user may read, which leave removes in the end.
make_scratch() {
	scratch=$(umask 077 && mktemp -d)
	service=$scratch/service
	closed=''
	trap leave EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
}

# $closed is not empty while shards_add has changed nothing but shut the router off from its shards.
leave() {
	rm -rf "$scratch"
	[ -z "$closed" ] || {
		closed=''
		run_sql admin/shards-open.sql
	}
}

# shards_init [STRING…]: makes shards of the databases and a router of that of the PG* variables.
# It may be run again, with the same shards in the same order.
shards_init() {
	read_shards "$@"
	make_scratch
	existing=$(run_sql admin/shards-count.sql)
	[ "$existing" = 0 ] || [ "$existing" = "$count" ] ||
		refuse "this is a router of $existing shards; steepctl shards add doubles their number"
	compare_identities
	[ "$existing" = 0 ] || [ "$(run_sql admin/shards-closed.sql)" = f ] || ! is_begun "$count" ||
		refuse 'steepctl shards add has begun to double the shards and did not end; run it again'
	migrate --shards
	[ "$(run_sql admin/events-any.sql)" = f ] || refuse 'the database of the router has events; a router must have none'
	make_shards
	run_sql proxy/router.sql
	printf 'the router has %s shards\n' "$count"
	shards_check
}

# shards_add [STRING…]: doubles the number of shards. The strings are those of all, the new ones
# after the old ones. A new shard is a copy of the one whose number is lower by half, made while
# nothing is stored. It may be run again after an interruption; until its end every request is
# answered 503.
shards_add() {
	read_shards "$@"
	make_scratch
	need_router
	half=$((count / 2)) existing=$(run_sql admin/shards-count.sql)
	[ "$existing" = "$half" ] || [ "$existing" = "$count" ] ||
		refuse "the router has $existing shards; give the strings of these and of as many new ones, not of $count"
	compare_identities
	# Once an old shard has its new place, some of its events may be deleted: only the end opens the
	# router then.
	compared=equal reopened=yes advice="stop ingest.fcgi, and dump and restore the old one again"
	if [ "$existing" = "$half" ] && is_begun "$half"; then
		compared=lesser reopened='' advice="the old one may have lost events since it was copied, so restore its first dump, and add what came later"
	fi
	run_sql admin/shards-close.sql
	closed=$reopened
	compare_copies
	closed=''
	make_shards
	# What was still on its way is stored by now, or refused for its shard's new place.
	compared=lesser
	compare_copies
	for number in $(numbers); do
		shard_sql "$number" admin/shards-clean.sql
	done
	run_sql proxy/router.sql
	printf 'the router has %s shards\n' "$count"
	shards_check
}

# Whether one of the first shards knows of more shards than there are: shards add has told it.
is_begun() {
	for number in $(seq 0 $(($1 - 1))); do
		place=$(shard_sql "$number" admin/shards-place.sql) || exit 1
		[ "$place" -le "$1" ] || return 0
	done
	return 1
}

# Refuses unless each new shard has as many events of its sources as the old one; or no fewer, if
# $compared is lesser, since the old one has lost some where it was cleaned before an interruption.
compare_copies() {
	for number in $(seq 0 $((half - 1))); do
		new=$((number + half))
		shard_sql "$number" admin/shards-copied.sql -v number="$new" -v shards="$count" >"$scratch/wanted"
		shard_sql "$new" admin/shards-copied.sql -v number="$new" -v shards="$count" >"$scratch/copied"
		awk -v compared="$compared" '
			FILENAME == ARGV[1] { copied[$1] = $2 + 0; next }
			!($1 in copied) || copied[$1] < $2 || (compared == "equal" && copied[$1] != $2) { exit 1 }
		' "$scratch/copied" "$scratch/wanted" ||
			refuse "shard $new is not a copy of shard $number: it lacks events; $advice"
	done
}

# No database may be two of them: what is stored in it would be counted twice.
compare_identities() {
	identities=$(run_sql admin/identity.sql)
	for number in $(numbers); do
		identity=$(shard_sql "$number" admin/identity.sql)
		case "
$identities
" in
		"
$identity
"*) refuse "shard $number is the database of the router" ;;
		*"
$identity
"*) refuse "shard $number is the same database as another" ;;
		esac
		identities="$identities
$identity"
	done
}

# Migrates the shards and tells each its place. Sets what router.sql needs.
make_shards() {
	# In base64, so that nothing in it has to be quoted.
	STEEP_SHARD_PASSWORD=$(openssl rand -base64 33)
	STEEP_SHARDS=$(places)
	export STEEP_SHARD_PASSWORD STEEP_SHARDS
	for number in $(numbers); do
		on_shard "$number" "$sql/migrate" --shards >"$scratch/output" 2>&1 || refuse "shard $number: $(sed -n '$s/^migrate: //p' "$scratch/output")"
		shard_sql "$number" proxy/shard.sql -v number="$number" -v shards="$count"
		printf 'shard %s is ready\n' "$number"
	done
}

numbers() {
	seq 0 $((count - 1))
}

shards_list() {
	need_router
	run_sql admin/shards-list.sql
}

shards_check() {
	need_router
	faults=$(run_sql admin/shards-check.sql)
	[ -z "$faults" ] || {
		printf '%s\n' "$faults"
		refuse 'the shards are not as they should be'
	}
	echo 'Every source is in its shard, and the shards and the router agree.'
}

need_router() {
	[ "$(run_sql admin/shards-count.sql)" != 0 ] || refuse 'this database is not a router of shards; see steepctl shards init'
}
