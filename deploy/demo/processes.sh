# Starts, watches and stops the services of deploy/run. Sourced by serve.
#
# Each service has a `keep` process, in a session of its own (Ctrl-C reaches only serve)
# and with the parent-death signal set: if serve is killed, the kernel signals the keep
# processes, and they end their services.
# shellcheck shell=sh disable=SC2154 # set by serve

log_of() {
	case $1 in
	postgres) echo log/postgresql.log ;;
	nginx) echo log/nginx-error.log ;;
	*) echo "log/$1.log" ;;
	esac
}

# keep_running NAME SIGNAL COMMAND…
keep_running() {
	setsid setpriv --pdeathsig TERM "$lib/deploy/demo/keep" "$@" 2>>"$(log_of "$1")" 9<&- &
	eval "keep_$1=\$!"
}

# keep_listening NAME SIGNAL COMMAND…: with listeners at run/NAME.sock for requests and
# run/NAME-health.sock for health and metrics.
keep_listening() {
	rm -f "run/$1.sock" "run/$1-health.sock"
	setsid setpriv --pdeathsig TERM "$lib/deploy/demo/listen" \
		"requests=run/$1.sock" "health=run/$1-health.sock" \
		"$lib/deploy/demo/keep" "$@" 2>>"$(log_of "$1")" 9<&- &
	eval "keep_$1=\$!"
}

# Sets $pid to that of the service's keep process; true while it lives.
is_kept() {
	eval "pid=\${keep_$1-}"
	[ -n "$pid" ] && kill -s 0 "$pid" 2>/dev/null
}

fail_with_log() {
	printf 'steep: %s %s; the end of %s/%s:\n' "$1" "$2" "$state" "$(log_of "$1")" >&2
	tail -n 12 "$(log_of "$1")" >&2
	exit 1
}

# wait_until NAME SECONDS COMMAND…: waits for the command to succeed.
wait_until() {
	service=$1 tries=$(($2 * 10))
	shift 2
	until "$@"; do
		is_kept "$service" || fail_with_log "$service" 'did not start'
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail_with_log "$service" 'did not become ready'
		sleep 0.1
	done
}

# Stops a service: waits 25 s, longer than any request takes, then kills it. PostgreSQL
# gets two minutes to write its checkpoint.
stop() {
	is_kept "$1" || return 0
	case $1 in postgres) tries=1200 ;; *) tries=250 ;; esac
	while kill -s 0 "$pid" 2>/dev/null; do
		[ $((tries % 10)) -ne 0 ] || kill -s TERM "$pid" 2>/dev/null || :
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || {
			kill -s KILL "$(cat "run/$1.pid" 2>/dev/null || echo "$pid")" "$pid" 2>/dev/null || :
			break
		}
		sleep 0.1
	done
}

# Prints the pids of an earlier run: our programs with this folder as working directory.
leftovers() {
	for process in /proc/[0-9]*; do
		# -ef compares the targets of the links, and is false without permission.
		# shellcheck disable=SC3013 # dash and bash have it
		[ "$process/cwd" -ef . ] || [ "$process/cwd" -ef pg ] || continue
		case $(readlink "$process/exe" 2>/dev/null || :) in
		*/nginx* | */postgres* | */ingest.fcgi* | */query.fcgi*) echo "${process#/proc/}" ;;
		*/dash | */bash | */sh)
			if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$lib/deploy/demo/keep "; then
				echo "${process#/proc/}"
			fi
			;;
		esac
	done
}

# For PostgreSQL INT is a fast shutdown, and QUIT one without a checkpoint: the next start
# recovers. The others end at any of them.
end_leftovers() {
	[ -n "$(leftovers)" ] || return 0
	say 'stopping the processes of an earlier run'
	for signal in TERM INT INT INT QUIT KILL; do
		for pid in $(leftovers); do
			kill -s "$signal" "$pid" 2>/dev/null || :
		done
		tries=50
		while [ -n "$(leftovers)" ] && [ "$tries" -gt 0 ]; do
			tries=$((tries - 1))
			sleep 0.1
		done
		[ -n "$(leftovers)" ] || return 0
	done
	fail 'cannot stop the processes of an earlier run'
}
