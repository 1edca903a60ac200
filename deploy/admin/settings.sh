# Reads environment files as systemd does, without executing them, and listen.conf.
# Sourced by steepctl and setup.
# shellcheck shell=sh

# Reads the next assignment from standard input into $setting, without surrounding white
# space and the quotes of its value; false at the end. The last line may lack a newline.
read_setting() {
	while IFS= read -r setting || [ -n "$setting" ]; do
		setting=${setting#"${setting%%[![:space:]]*}"}
		setting=${setting%"${setting##*[![:space:]]}"}
		case $setting in
		[A-Za-z_]*=\"*\" | [A-Za-z_]*=\'*\')
			value=${setting#*=?}
			setting=${setting%%=*}=${value%?}
			return 0
			;;
		[A-Za-z_]*=*) return 0 ;;
		esac
	done
	return 1
}

# settings_fault FILE: prints which line, if any, is not an assignment. systemd ignores
# such a line, at most with a message in its journal.
settings_fault() {
	line=$(grep -nvE '^[[:space:]]*([#;].*|[A-Za-z_][A-Za-z0-9_]*=.*)?$' "$1" | head -n 1)
	[ -z "$line" ] || printf '%s, line %s, is not NAME=VALUE' "$1" "${line%%:*}"
}

# are_days TEXT: whether TEXT is a number of days that events can be kept.
are_days() {
	case $1 in
	'' | *[!0-9]* | 0* | ??????*) return 1 ;;
	esac
	[ "$1" -le 36500 ]
}

# retention_fault FILE: prints what is wrong with the retention time, if anything.
retention_fault() {
	are_days "$(setting_of "$1" STEEP_RETENTION_DAYS)" ||
		printf '%s: STEEP_RETENTION_DAYS must be a whole number from 1 to 36500' "$1"
}

# setting_of FILE NAME: prints the value of NAME; the last assignment counts.
setting_of() {
	found=''
	while read_setting; do
		case $setting in "$2"=*) found=${setting#*=} ;; esac
	done <"$1"
	printf '%s' "$found"
}

# most_connections FILE…: prints how many connections programs with these settings may open to
# the server of the first: those for requests, one that reads the credentials, one that probes.
most_connections() {
	total=0 first=$1
	for file; do
		[ -r "$file" ] || continue
		for variable in PGHOST PGPORT; do
			[ "$(setting_of "$file" "$variable")" = "$(setting_of "$first" "$variable")" ] || continue 2
		done
		count=$(setting_of "$file" STEEP_CONNECTIONS)
		# The default is that of fcgi/base/config.c.
		case $count in
		'' | *[!0-9]* | 0* | ????*)
			count=$(nproc)
			[ "$count" -ge 2 ] || count=2
			[ "$count" -le 256 ] || count=256
			;;
		esac
		total=$((total + count + 2))
	done
	echo "$total"
}

# first_listen FILE: prints the value of the first listen directive with a port.
first_listen() {
	sed -nE 's/^[[:space:]]*listen[[:space:]]+(([^;[:space:]]*:)?[0-9]+([[:space:]][^;]*)?)(;.*)?$/\1/p' "$1" | head -n 1
}

# site_address FILE: prints its ADDRESS:PORT, as this machine reaches it.
site_address() {
	first_listen "$1" | sed -E 's/[[:space:]].*//;s/^[0-9]+$/:&/;s/^(\*|0\.0\.0\.0|\[::\])?:/localhost:/'
}

# site_scheme FILE: prints whether it is for https or http.
site_scheme() {
	first_listen "$1" | sed -E 's/.*[[:space:]]ssl([[:space:]].*)?$/https/;t;s/.*/http/'
}

# url_of SCHEME ADDRESS: prints a URL, without the scheme's own port.
url_of() {
	printf '%s://%s' "$1" "$2" | sed -E 's,^(https://.*):443$,\1,;s,^(http://.*):80$,\1,'
}
