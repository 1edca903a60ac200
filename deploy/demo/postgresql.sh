# The PostgreSQL of this system. Sourced by serve and by the tests.
# shellcheck shell=sh

# Prints the major version that Debian's package postgresql stands for; it must be installed.
postgresql_major() {
	dpkg-query -W -f '${Depends}' postgresql | sed -n 's/.*postgresql-\([0-9][0-9]*\).*/\1/p'
}
