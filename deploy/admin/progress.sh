# Progress of what may take long, on standard error: after two seconds on a terminal, in one
# line that is drawn again each second; elsewhere as a line every ten seconds; nothing if
# $quiet is set. fcgi/import/progress.c has the same words. Sourced by steepctl.
# shellcheck shell=sh
quiet='' watch=''

begin_progress() {
	progress_began=$(date +%s)
	progress_shown=$progress_began progress_drawn=''
}

# Whether it is time to show something.
progress_is_due() {
	[ -z "$quiet" ] || return 1
	progress_now=$(date +%s)
	progress_seconds=$((progress_now - progress_began))
	if [ -t 2 ]; then
		[ "$progress_seconds" -ge 2 ] && [ "$progress_now" -ne "$progress_shown" ]
	else
		[ $((progress_now - progress_shown)) -ge 10 ]
	fi
}

# show_progress DONE TOTAL UNIT: call it as often as there is something new. TOTAL is 0 if it is
# not known, and may be too small.
show_progress() {
	if progress_is_due; then draw_progress "$@"; fi
}

# draw_progress DONE TOTAL UNIT: after progress_is_due. DONE may be -, if only UNIT is known.
draw_progress() {
	if [ -t 2 ]; then
		progress_drawn=yes
		printf '\r%s\033[K' "$(progress_text "$@")" >&2
	else
		printf 'steepctl: %s\n' "$(progress_text "$@")" >&2
	fi
	progress_shown=$progress_now
}

# Removes the line from the terminal. Call it before something else is written there.
end_progress() {
	[ -z "$progress_drawn" ] || printf '\r\033[K' >&2
	progress_drawn=''
}

progress_text() {
	if [ "$1" = - ]; then
		printf '%s, running for %s s' "$3" "$progress_seconds"
		return
	fi
	rate=$(($1 / progress_seconds))
	if [ "$1" -lt "$2" ] && [ "$rate" -gt 0 ]; then
		printf '%s of %s %s (%s %%), %s a second, %s s left' "$1" "$2" "$3" $(($1 * 100 / $2)) "$rate" \
			$((($2 - $1 + rate - 1) / rate))
	else
		printf '%s %s, %s a second' "$1" "$3" "$rate"
	fi
}

# begin_watch COMMAND…: shows the progress of what is not a loop of steepctl's own, until
# end_watch. COMMAND prints DONE, TOTAL and UNIT, separated by tabs, or nothing; it must not ask
# for a password.
begin_watch() {
	[ -z "$quiet" ] || return 0
	keep_watch "$@" >/dev/null &
	watch=$!
}

keep_watch() {
	begin_progress
	trap 'end_progress; exit 0' TERM
	# steepctl may have been killed.
	while kill -s 0 $$ 2>/dev/null; do
		sleep 1 >/dev/null 2>&1 &
		wait $! || :
		progress_is_due || continue
		IFS='	' read -r progress_done progress_total progress_unit <<END
$("$@" 2>/dev/null)
END
		[ -z "$progress_unit" ] || draw_progress "$progress_done" "$progress_total" "$progress_unit"
	done
}

end_watch() {
	[ -n "$watch" ] || return 0
	kill "$watch" 2>/dev/null || :
	wait "$watch" 2>/dev/null || :
	watch=''
}
