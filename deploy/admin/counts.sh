# The hourly counts, and the removal of what is old. Sourced by steepctl.
# shellcheck shell=sh

check_days() {
	are_days "$1" || refuse 'DAYS must be a whole number from 1 to 36500'
}

counts_check() {
	differences=$(run_sql admin/counts-check.sql)
	if [ -n "$differences" ]; then
		printf '%s\n' "$differences"
		refuse 'the counts of these hours differ from the stored events; run steepctl counts rebuild'
	fi
	echo 'The hourly counts are correct.'
}

counts_rebuild() {
	counted=$(run_sql admin/counts-rebuild.sql)
	printf 'events counted: %s\n' "$counted"
}

# prune DAYS [force]: each step deletes a limited number of events, in a transaction of its
# own.
prune() {
	check_days "$1"
	if [ $# -eq 1 ]; then
		objection=$(run_sql admin/prune-check.sql -v days="$1")
		[ -z "$objection" ] || refuse "$objection"
	fi
	total=0 step=1
	while [ "$step" -gt 0 ]; do
		step=$(run_sql admin/prune-events.sql -v days="$1")
		total=$((total + step))
	done
	printf 'events deleted: %s\n' "$total"
}

# As prune. Each step begins at the time where the last one ended.
empty_payloads() {
	check_days "$1"
	total=0 emptied=1 newest=-infinity
	while [ "$emptied" -gt 0 ]; do
		step=$(run_sql admin/prune-payloads.sql -v days="$1" -v newest="$newest")
		emptied=${step%%	*} newest=${step#*	}
		total=$((total + emptied))
	done
	printf 'payloads emptied: %s\n' "$total"
}
