# The export and import of events. Sourced by steepctl.
# shellcheck shell=sh

# check_time TIME OPTION: PostgreSQL checks the rest; it would also take words such as now.
check_time() {
	case $1 in
	[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] | [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][Tt\ ]*[Zz] | \
		[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][Tt\ ]*[+-][0-9][0-9]:[0-9][0-9]) ;;
	*) refuse "$2 must be a date, such as 2026-02-01, or a date and time with its offset, such as 2026-02-01T08:00:00Z" ;;
	esac
}

# events_export [--source NAME] [--from TIME] [--to TIME]
events_export() {
	source='' from='' to=''
	while [ $# -gt 1 ]; do
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
	[ $# -eq 0 ] || misused
	run_sql admin/events-export.sql -v source="$source" -v from="$from" -v to="$to"
}

# The settings keep what a client sent out of the server's log, see roles.sql. Only a
# superuser may set them.
events_import() {
	program=$(ingest_program)
	is_superuser=$(run_sql admin/events-import.sql)
	if [ "$is_superuser" = t ]; then
		PGOPTIONS="${PGOPTIONS-} -c log_error_verbosity=terse -c log_min_error_statement=panic \
-c log_parameter_max_length=0 -c log_parameter_max_length_on_error=0"
		export PGOPTIONS
	fi
	exec "$program" --import
}
