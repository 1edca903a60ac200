# Ports of this machine. Sourced by serve, setup and tests/stack.sh.
# shellcheck shell=sh

# listeners PORT: prints the inode of each socket that listens on a TCP port, without
# tools that may be missing. Each line of these tables has the local address, the state
# (0A is "listening") and the inode.
listeners() {
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
		awk -v hex=":$(printf '%04X' "$1")" '$4 == "0A" && $2 ~ hex "$" { print $10 }'
}

# Prints a port on which nothing listens, below those that the kernel gives to outgoing
# connections, which would take it before it is used.
free_port() {
	until free=$(shuf -i 10000-29999 -n 1) && [ -z "$(listeners "$free")" ]; do :; done
	echo "$free"
}

# Whether this machine has the address ::1.
has_local_ipv6() {
	grep -qs '^0\{31\}1 ' /proc/net/if_inet6
}
