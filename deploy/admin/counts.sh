# The check and the rebuilding of the hourly counts. Sourced by steepctl.
# shellcheck shell=sh disable=SC2154 # set by steepctl

counts_check() {
	differences=$(run_reporting events -f "$sql/admin/counts-check.sql")
	if [ -n "$json" ]; then
		printf '{"differences": [%s]}\n' "$(printf '%s' "$differences" | paste -s -d , -)"
	elif [ -z "$differences" ]; then
		echo 'The hourly counts are correct.'
	else
		printf '%s\n' "$differences"
	fi
	[ -z "$differences" ] ||
		refuse 'the counts of these hours differ from the stored events; run steepctl counts rebuild'
}

counts_rebuild() {
	counted=$(run_reporting events -f "$sql/admin/counts-rebuild.sql")
	printf 'events counted: %s\n' "$counted"
}
