# The monitors and their keys. Sourced by steepctl.
# shellcheck shell=sh

check_name() {
	case $1 in
	'' | ' '* | *' ' | *[!\ -~]*)
		refuse "a monitor's name must be printable ASCII without a space at either end"
		;;
	esac
	[ "${#1}" -le 255 ] || refuse "a monitor's name must have at most 255 characters"
}

monitor_add() {
	check_start "$1" "monitor's name"
	check_name "$1"
	key=$(public_key "$2")
	added=$(run_sql admin/monitor-add.sql -v name="$1" -v key="$key")
	[ -n "$added" ] || refuse "monitor $1 already has this key"
	printf 'added key of monitor %s: %s\n' "$1" "$key"
}

monitor_list() {
	run_sql admin/monitor-list.sql
}

monitor_remove() {
	check_name "$1"
	key=''
	[ $# -eq 1 ] || key=$(public_key "$2")
	removed=$(run_sql admin/monitor-remove.sql -v name="$1" -v key="$key")
	[ "$removed" -gt 0 ] || refuse "monitor $1 has no ${2:+such }key in the database; keys in VIBETEA_PUBLIC_KEYS \
must be removed from the environment of ingest.fcgi"
	printf 'removed keys of monitor %s: %s\n' "$1" "$removed"
}
