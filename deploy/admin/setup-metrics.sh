# The listener for metrics. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # set by setup

metrics_listen=/etc/nginx/snippets/steep/metrics-listen.conf
metrics_listen_ipv6=/etc/nginx/snippets/steep/metrics-listen-ipv6.conf

# Sets $port_metrics. Runs before anything is changed.
check_metrics_port_is_free() {
	port_metrics=$(site_address "$metrics_listen")
	port_metrics=${port_metrics##*:}
	[ -n "$port_metrics" ] || fail "$metrics_listen has no listen directive with a port"
	for inode in $(listeners "$port_metrics"); do
		is_of_nginx "$inode" || fail "port $port_metrics is in use by a program other than nginx; set another port in $metrics_listen"
	done
}

# nginx does not start if it cannot bind an address, and refuses one that is given twice.
listen_on_local_ipv6() {
	if has_local_ipv6 && ! grep -qE '^[[:space:]]*listen[[:space:]]+\[' "$metrics_listen"; then
		printf '# Written by steepctl setup, as this machine has the address ::1.\nlisten [::1]:%s;\n' "$port_metrics" >"$metrics_listen_ipv6"
	else
		rm -f "$metrics_listen_ipv6"
	fi
}
