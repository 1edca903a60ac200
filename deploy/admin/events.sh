# The export, import and removal of events. Sourced by steepctl.
# shellcheck shell=sh disable=SC2034,SC2154 # set by steepctl, and read by other files of it

# check_time TIME OPTION: PostgreSQL checks the rest; it would also take words such as now.
check_time() {
	date='[0-9]{4}-[0-9]{2}-[0-9]{2}' time='[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?'
	printf '%s' "$1" | grep -qzxE "$date([Tt ]$time([Zz]|[+-][0-9]{2}:[0-9]{2}))?" ||
		refuse "$2 must be a date, such as 2026-02-01, or a date and time with its offset, such as 2026-02-01T08:00:00Z"
}

# events_export [--source NAME] [--from TIME] [--to TIME] [--quiet]: shows its progress if it
# writes to a file; a terminal has the events themselves, and a pipe may lead to events import.
events_export() {
	source='' from='' to=''
	while [ $# -gt 0 ]; do
		case $1 in
		--quiet)
			quiet=yes
			shift
			continue
			;;
		esac
		[ $# -gt 1 ] || misused
		[ -n "$2" ] || refuse "$1 must not be empty"
		case $1 in
		--source) source=$2 ;;
		--from) from=$2 ;;
		--to) to=$2 ;;
		*) misused ;;
		esac
		case $1 in --from | --to) check_time "$2" "$1" ;; esac
		shift 2
	done
	set -- -v source="$source" -v from="$from" -v to="$to"
	shards=$(run_sql admin/shards-count.sql)
	if [ "$shards" != 0 ]; then
		export_shards "$@"
		return
	fi
	if [ -z "$quiet" ] && [ -f /dev/stdout ]; then
		session="steepctl events export $$"
		export PGAPPNAME="$session"
		# A database that is not steep's may have events and no counts.
		expected=$(run_sql admin/events-expected.sql -w "$@" 2>/dev/null) || expected=0
		begin_watch run_sql admin/events-exported.sql -w -v session="$session" -v expected="$expected"
	fi
	run_sql admin/events-export.sql "$@"
	end_watch
}

# export_shards [-v NAME=VALUE]…: exports from a router, shard by shard, some pages at a time.
export_shards() {
	[ -f /dev/stdout ] || quiet=yes
	total=0 expected=0
	[ -n "$quiet" ] || expected=$(run_sql admin/events-expected.sql "$@")
	begin_progress
	for shard in $(seq 0 $((shards - 1))); do
		after=''
		while :; do
			run_sql admin/events-export-shard.sql "$@" -v shard="$shard" -v after="$after"
			# What psql wrote to standard error.
			total=$((total + ${errors%%/*})) after=${errors#*/}
			show_progress "$total" "$expected" events
			[ -n "$after" ] || break
		done
	done
	end_progress
}

# The settings keep what a client sent out of the server's log, see roles.sql. Only a
# superuser may set them.
events_import() {
	program=$(ingest_program)
	is_superuser=$(run_sql admin/events-import-check.sql)
	if [ "$is_superuser" = t ]; then
		PGOPTIONS="${PGOPTIONS-} -c log_error_verbosity=terse -c log_min_error_statement=panic \
-c log_parameter_max_length=0 -c log_parameter_max_length_on_error=0"
		export PGOPTIONS
	fi
	exec "$program" --import ${quiet:+--quiet}
}

events_remove() {
	name='' from='' to='' future=false is_dry=''
	while [ $# -gt 0 ]; do
		case $1 in
		--source | --from | --to)
			[ $# -gt 1 ] || misused
			case $1 in
			--source)
				[ -n "$2" ] || refuse 'the name of a source must not be empty'
				name=$2
				;;
			--from)
				check_time "$2" "$1"
				from=$2
				;;
			--to)
				check_time "$2" "$1"
				to=$2
				;;
			esac
			shift
			;;
		--future) future=true ;;
		--dry-run) is_dry=yes ;;
		--json) json=--set=json= ;;
		--quiet) quiet=yes ;;
		*) misused ;;
		esac
		shift
	done
	[ -n "$is_dry" ] || [ -z "$json" ] || misused
	case $future:$from$to in
	true:?*) refuse '--future cannot be combined with --from and --to' ;;
	false:) refuse 'give --from, --to or --future; steepctl source erase deletes all of a source' ;;
	esac
	objection=$(run_sql admin/events-bounds.sql -v from="$from" -v to="$to")
	[ -z "$objection" ] || refuse "$objection"
	set -- -v source="$name" -v from="$from" -v to="$to" -v future="$future"
	if [ -n "$is_dry" ]; then
		run_sql admin/events-count.sql "$@"
	else
		run_steps events admin/events-remove.sql "$@"
		printf 'events removed: %s\n' "$changed"
	fi
}
