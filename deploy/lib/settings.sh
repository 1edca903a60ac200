# Reading an environment file as systemd does, of which nothing is executed.
# Sourced by steepctl and setup.
# shellcheck shell=sh

# Reads the next assignment from standard input into $setting, without the quotes
# around its value; false at the end.
read_setting() {
	while IFS= read -r setting; do
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

# setting_of FILE NAME: prints its value, the last one where there are several.
setting_of() {
	found=''
	while read_setting; do
		case $setting in "$2"=*) found=${setting#*=} ;; esac
	done <"$1"
	printf '%s' "$found"
}
