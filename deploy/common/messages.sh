# Messages. Sourced by run, serve and setup.
# shellcheck shell=sh

say() {
	printf 'steep: %s\n' "$1"
}

fail() {
	say "$1" >&2
	exit 1
}
