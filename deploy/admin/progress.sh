# Progress of what may take long, on standard error: after two seconds on a terminal, in one
# line that is drawn again each second; elsewhere as a line every ten seconds; nothing if
# $quiet is set. Sourced by steepctl.
# shellcheck shell=sh
quiet=''

begin_progress() {
	progress_began=$(date +%s)
	progress_shown=$progress_began progress_drawn=''
}

# show_progress DONE TOTAL UNIT: call it as often as there is something new. TOTAL is 0 if it is
# not known, and may be too small.
show_progress() {
	[ -z "$quiet" ] || return 0
	progress_now=$(date +%s)
	progress_seconds=$((progress_now - progress_began))
	if [ -t 2 ]; then
		[ "$progress_seconds" -ge 2 ] && [ "$progress_now" -ne "$progress_shown" ] || return 0
		progress_drawn=yes
		printf '\r%s\033[K' "$(progress_text "$@")" >&2
	else
		[ $((progress_now - progress_shown)) -ge 10 ] || return 0
		printf 'steepctl: %s\n' "$(progress_text "$@")" >&2
	fi
	progress_shown=$progress_now
}

# Without a line that is left on a terminal.
end_progress() {
	[ -z "$progress_drawn" ] || printf '\r\033[K' >&2
}

progress_text() {
	rate=$(($1 / progress_seconds))
	if [ "$1" -lt "$2" ] && [ "$rate" -gt 0 ]; then
		printf '%s of %s %s (%s %%), %s a second, %s s left' "$1" "$2" "$3" $(($1 * 100 / $2)) "$rate" \
			$((($2 - $1 + rate - 1) / rate))
	else
		printf '%s %s, %s a second' "$1" "$3" "$rate"
	fi
}
