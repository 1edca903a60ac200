# An installation of a suite's own: sourced by tests/run and tests/bench/run, which
# set $top and $folder. $stack is its process, '' when there is none.
# shellcheck shell=sh disable=SC2154 # what they set
stack=''

# shellcheck source=/dev/null # deploy/common/port.sh
. "$top/deploy/common/port.sh"

# Starts deploy/run and sets the variables of its run.env; ends the caller where
# that fails, with what it said.
start_stack() {
	[ -z "$stack" ] || return 0
	STEEP_STATE=$folder/state STEEP_PORT=$(free_port)
	export STEEP_STATE STEEP_PORT
	"$top/deploy/run" >"$folder/stack.log" 2>&1 </dev/null &
	stack=$!
	tries=1200
	until [ -e "$STEEP_STATE/run.env" ]; do
		tries=$((tries - 1))
		if [ "$tries" -eq 0 ] || ! kill -s 0 "$stack" 2>/dev/null; then
			cat "$folder/stack.log" >&2
			echo 'the installation did not start' >&2
			exit 1
		fi
		sleep 0.1
	done
	while IFS= read -r line; do
		export "${line?}"
	done <"$STEEP_STATE/run.env"
}

end_process() {
	kill -s TERM "$1" 2>/dev/null || :
	wait "$1" 2>/dev/null || :
}

stop_stack() {
	[ -n "$stack" ] || return 0
	end_process "$stack"
	stack=''
}
