# The PostgreSQL of this system. Sourced by serve and by the tests.
# shellcheck shell=sh

# Prints the major version that Debian's package postgresql stands for; it must be installed.
postgresql_major() {
	dpkg-query -W -f '${Depends}' postgresql | grep -o 'postgresql-[0-9]*' | sed 's/.*-//'
}

# postgresql_bin MAJOR: prints the folder of the server's programs.
postgresql_bin() {
	echo "/usr/lib/postgresql/$1/bin"
}
