# Who listens on a TCP port, without tools that may be missing, and where the site does.
# Sourced by serve, setup and steepctl.
# shellcheck shell=sh

# listeners PORT: prints the inode of each socket that listens there. Of each
# socket the tables have the local address, the state (0A is "listening") and the inode.
listeners() {
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
		awk -v hex=":$(printf '%04X' "$1")" '$4 == "0A" && $2 ~ hex "$" { print $10 }'
}

# site_address FILE: prints ADDRESS:PORT, where this machine reaches what a listen.conf
# names first; nothing where it names no port.
site_address() {
	sed -nE 's/^[[:space:]]*listen[[:space:]]+(([^;[:space:]]*):)?([0-9]+)[[:space:];].*/\2:\3/p' "$1" | head -n 1 |
		sed -E 's/^(\*|0\.0\.0\.0|\[::\])?:/localhost:/'
}
