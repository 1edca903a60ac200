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
	printf 'events moved: %s\nkeys copied: %s\n' "$changed" "${prepared#* }"
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
	[ -z "$(run_sql admin/source-info.sql -v source="$name")" ] ||
		refuse "$name still sends events; remove its key from VIBETEA_PUBLIC_KEYS in the environment of ingest.fcgi, and erase it again"
	check_uncounted
}

# Events that the counts miss, as after a restore without triggers, are not found by them.
check_uncounted() {
	[ "$(run_sql admin/has-events.sql -v source="$name")" = f ] ||
		refuse "$name has events that are not counted; run steepctl counts rebuild, and erase it again"
}
