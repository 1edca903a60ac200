# Reading an environment file as systemd does, of which nothing is executed.
# Sourced by steepctl and setup.
# shellcheck shell=sh

# Reads the next assignment from standard input into $setting, without white space
# around it and the quotes around its value; false at the end. The last line may lack
# its newline.
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

# settings_fault FILE: says which line is no assignment, if any. systemd leaves it out,
# and mentions that in its journal at most.
settings_fault() {
	line=$(grep -nvE '^[[:space:]]*([#;].*|[A-Za-z_][A-Za-z0-9_]*=.*)?$' "$1" | head -n 1)
	[ -z "$line" ] || printf '%s, line %s, is not NAME=VALUE' "$1" "${line%%:*}"
}

# are_days TEXT: whether it is a number of days that events can be kept for.
are_days() {
	case $1 in
	'' | *[!0-9]* | 0* | ??????*) return 1 ;;
	esac
	[ "$1" -le 36500 ]
}

# retention_fault FILE: says so where the days of the daily run are none.
retention_fault() {
	are_days "$(setting_of "$1" STEEP_RETENTION_DAYS)" ||
		printf '%s: STEEP_RETENTION_DAYS must be a whole number from 1 to 36500' "$1"
}

# setting_of FILE NAME: prints its value, the last one where there are several.
setting_of() {
	found=''
	while read_setting; do
		case $setting in "$2"=*) found=${setting#*=} ;; esac
	done <"$1"
	printf '%s' "$found"
}

# site_address FILE: prints ADDRESS:PORT, where this machine reaches what a listen.conf
# names first; nothing if it names no port.
site_address() {
	sed -nE 's/^[[:space:]]*listen[[:space:]]+(([^;[:space:]]*):)?([0-9]+)[[:space:];].*/\2:\3/p' "$1" | head -n 1 |
		sed -E 's/^(\*|0\.0\.0\.0|\[::\])?:/localhost:/'
}
