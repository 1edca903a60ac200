# The site behind a proxy that terminates TLS. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # set by setup

proxy_mark='# Written by steepctl setup --behind-proxy.'

# Runs before anything is changed. Sets $address, where nginx will listen.
check_proxies() {
	[ -n "$proxies" ] || {
		[ -z "$address" ] || fail '--listen belongs to --behind-proxy'
		return 0
	}
	[ -z "$certificate$name" ] || fail 'behind a proxy the site has no certificate: --behind-proxy excludes --name and --certificate'
	case $proxies in
	*[!0-9A-Fa-f.:/,]* | ,* | *, | *,,*) fail "$proxies is not a list of IP addresses; separate them by commas" ;;
	esac
	[ -n "$address" ] || case ${proxies%%,*} in
	127.*) address=127.0.0.1:8080 ;;
	::1 | ::1/*) address="[::1]:8080" ;;
	*) fail "the proxy ${proxies%%,*} is on another machine; give the address of this one that it connects to with --listen ADDRESS:PORT" ;;
	esac
	printf '%s\n' "$address" | grep -Eqx '([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]+' ||
		fail "--listen $address is not ADDRESS:PORT"
}

# Keeps the file that it replaces until the test has passed.
listen_behind_proxy() {
	[ -n "$proxies" ] || return 0
	{
		cat <<END
$proxy_mark
# A proxy terminates TLS and passes requests on to this address.

listen $address default_server;
server_name _;

# The proxies, which forward the address of a client. Nobody else is trusted.
END
		printf 'set_real_ip_from %s;\n' "$proxies" | sed 's/,/;\nset_real_ip_from /g'
		printf 'real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n'
	} >"$listen.new"
	if cmp -s "$listen.new" "$listen"; then
		rm "$listen.new"
	else
		mv -f "$listen" "$listen.replaced"
		new_listen=yes
		mv -f "$listen.new" "$listen"
	fi
}

# listen.conf.old is what the operator had before the proxy.
keep_old_listen() {
	[ -n "$new_listen" ] || return 0
	if grep -qxF "$proxy_mark" "$listen.replaced"; then
		rm "$listen.replaced"
	else
		mv -f "$listen.replaced" "$listen.old"
	fi
	new_listen=''
}

restore_listen() {
	[ -z "$new_listen" ] || mv -f "$listen.replaced" "$listen"
}
