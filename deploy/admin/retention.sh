# The removal of what is old. Sourced by steepctl.
# shellcheck shell=sh disable=SC2034,SC2154 # set by steepctl, and read by other files of it

check_days() {
	are_days "$1" || refuse 'DAYS must be a whole number from 1 to 36500'
}

# prune DAYS [--force | --payloads-only] [--quiet]: the options may stand anywhere.
prune() {
	unset days
	mode=''
	while [ $# -gt 0 ]; do
		case $mode:$1 in
		:--force | :--payloads-only) mode=$1 ;;
		*:--quiet) quiet=yes ;;
		*:--*) misused ;;
		*)
			[ -z "${days+set}" ] || misused
			days=$1
			;;
		esac
		shift
	done
	[ -n "${days+set}" ] || misused
	check_days "$days"
	expected=0
	if [ "$mode" = '' ]; then
		objection=$(run_sql admin/prune-check.sql -v days="$days")
		[ -z "$objection" ] || refuse "$objection"
	fi
	[ -n "$quiet" ] || expected=$(run_sql admin/prune-count.sql -v days="$days" -v newest='')
	begin_progress
	case $mode in
	--payloads-only) empty_payloads ;;
	*) delete_events ;;
	esac
}

# Each step deletes a limited number of events, in a transaction of its own.
delete_events() {
	total=0 step=1
	while [ "$step" -gt 0 ]; do
		step=$(run_sql admin/prune-events.sql -v days="$days")
		total=$((total + step))
		show_progress "$total" "$expected" events
	done
	end_progress
	printf 'events deleted: %s\n' "$total"
}

# Each step begins at the time where the last one ended. What it passes may be empty already, so
# the progress is that of all events.
empty_payloads() {
	total=0 emptied=1 newest=-infinity
	while [ "$emptied" -gt 0 ]; do
		step=$(run_sql admin/prune-payloads.sql -v days="$days" -v newest="$newest")
		emptied=${step%%	*} newest=${step#*	}
		total=$((total + emptied))
		if [ "$emptied" -gt 0 ] && progress_is_due; then
			draw_progress "$(run_sql admin/prune-count.sql -v days="$days" -v newest="$newest")" "$expected" events
		fi
	done
	end_progress
	printf 'payloads emptied: %s\n' "$total"
}
