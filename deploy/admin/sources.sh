# The sources: what is stored of each, and what changes all of it. Sourced by steepctl.
# shellcheck shell=sh disable=SC2034,SC2154 # set by steepctl, and read by other files of it

source_list() {
	run_sql admin/source-list.sql
}

# source_rename OLD NEW [--merge] [--quiet]: the options may stand anywhere.
source_rename() {
	unset old new
	merge=false options=yes
	while [ $# -gt 0 ]; do
		case $options:$1 in
		yes:--merge) merge=true ;;
		yes:--quiet) quiet=yes ;;
		yes:--) options='' ;;
		yes:--*) misused ;;
		*)
			if [ -z "${old+set}" ]; then
				old=$1
			elif [ -z "${new+set}" ]; then
				new=$1
			else
				misused
			fi
			;;
		esac
		shift
	done
	[ -n "${new+set}" ] || misused
	check_start "$new" "monitor's name"
	check_name "$new"
	[ "$old" != "$new" ] || refuse 'a source cannot be renamed to itself'
	run_steps events admin/source-rename.sql -v old="$old" -v new="$new" -v merge="$merge"
	# shellcheck disable=SC2086 # two numbers, and labels
	set -- $prepared
	printf 'events moved: %s\nkeys copied: %s\n' "$changed" "$2"
	shift 2
	for label; do
		printf '%s was added to the scope of token %s\n' "$new" "$label"
	done
	print_tokens "$old" "$new"
	remaining=$(run_sql admin/source-info.sql -v source="$old")
	case $remaining in
	*'	0' | '') ;;
	*) printf 'monitor %s is still registered; when it sends the new name, run this again and steepctl monitor remove\n' "$old" ;;
	esac
}

# source_erase NAME [--yes] [--quiet]: the options may stand anywhere.
source_erase() {
	unset name
	is_sure='' options=yes
	while [ $# -gt 0 ]; do
		case $options:$1 in
		yes:--yes) is_sure=yes ;;
		yes:--quiet) quiet=yes ;;
		yes:--) options='' ;;
		yes:--*) misused ;;
		*)
			[ -z "${name+set}" ] || misused
			name=$1
			;;
		esac
		shift
	done
	[ -n "${name+set}" ] || misused
	found=$(run_sql admin/source-info.sql -v source="$name")
	if [ -z "$found" ]; then
		check_uncounted
		print_tokens "$name" ''
		refuse "there is no source $name"
	fi
	# shellcheck disable=SC2086 # three numbers
	set -- $found
	if [ -z "$is_sure" ]; then
		printf 'This deletes %s events, %s hourly counts and %s keys of %s.\nTo go on, type the name again: ' "$@" "$name" >&2
		IFS= read -r answer || :
		[ "$answer" = "$name" ] || refuse "$name was not erased: the name typed is another"
	fi
	run_steps events admin/source-erase.sql -v source="$name"
	total=$changed keys=${prepared#* }
	# The programs may take so long to learn that the keys are gone.
	if [ "$keys" -gt 0 ]; then
		sleep 6
		run_steps events admin/source-erase.sql -v source="$name"
		total=$((total + changed)) keys=$((keys + ${prepared#* }))
	fi
	printf 'events deleted: %s\nhourly counts deleted: %s\nkeys removed: %s\n' "$total" "$2" "$keys"
	print_tokens "$name" ''
	[ -z "$(run_sql admin/source-info.sql -v source="$name")" ] ||
		refuse "$name still sends events; remove its key from VIBETEA_PUBLIC_KEYS in the environment of ingest.fcgi, and erase it again"
	check_uncounted
}

# Events that the counts miss, as after a restore without triggers, are not found by them.
check_uncounted() {
	[ "$(run_sql admin/has-events.sql -v source="$name")" = f ] ||
		refuse "$name has events that are not counted; run steepctl counts rebuild, and erase it again"
}

# print_tokens NAME NEW: the tokens whose scope may have to be changed, now that NAME is called
# NEW, or was erased if that is empty.
print_tokens() {
	listed=$(run_sql admin/source-tokens.sql -v source="$1" -v new="$2")
	[ -z "$listed" ] || printf '%s\n' "$listed" | while IFS='	' read -r change label command; do
		case $change:$command in
		lost:-) printf 'token %s sees %s and not %s, which cannot be added to its scope\n' "$label" "$1" "$2" ;;
		lost:*) printf 'token %s sees %s and not %s; to change that: %s\n' "$label" "$1" "$2" "$command" ;;
		gained:*) printf 'token %s does not see %s, but now sees its events, as its scope has %s\n' "$label" "$1" "$2" ;;
		named:*) printf 'token %s still names %s; to change that: %s\n' "$label" "$1" "$command" ;;
		esac
	done
}
