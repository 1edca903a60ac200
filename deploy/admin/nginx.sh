# How nginx is configured on this machine. The packages of Debian and of nginx.org differ in
# the user, and in the folder of the sites. Sourced by setup and status.
# shellcheck shell=sh

# Prints the configuration with the files that it includes, or the main file of an invalid one.
nginx_configuration() {
	nginx -T 2>/dev/null || cat /etc/nginx/nginx.conf
}

# Prints the user and the group of nginx's workers.
nginx_account() {
	account=$(nginx_configuration | sed -nE 's/^[[:space:]]*user[[:space:]]+([^;]+);.*/\1/p' | head -n 1)
	[ -n "$account" ] || account=$(nginx -V 2>&1 | tr ' ' '\n' | sed -nE 's/^--(user|group)=//p' | tr '\n' ' ')
	# shellcheck disable=SC2086 # one or two names
	set -- ${account:-nobody nogroup}
	printf '%s %s' "$1" "${2-$1}"
}

# Prints the name under which nginx reads a site, relative to its folder; nothing if there
# is none.
nginx_site() {
	included=$(nginx_configuration | sed -nE "s,^[[:space:]]*include[[:space:]]+[\"']?(/etc/nginx/)?([^;\"'[:space:]]+)[\"']?;.*,\2,p")
	for candidate in sites-enabled/steep sites-enabled/steep.conf conf.d/steep.conf; do
		while read -r pattern; do
			# shellcheck disable=SC2254 # a pattern
			case $candidate in $pattern)
				printf '%s' "$candidate"
				return
				;;
			esac
		done <<END
$included
END
	done
}
